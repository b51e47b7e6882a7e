{{/* URLs and passwords of the replicas, as data of a Secret. */}}
{{- define "podlog.secretData" -}}
{{- $url := .Values.lock.url -}}
{{- $sink := .Values.sink.url | default "stdout" -}}
{{- if .Values.mysql.enabled -}}
{{- $url = printf "mysql://podlog@%s-mysql:3306/podlog" (include "podlog.fullname" .) -}}
{{- $sink = $url -}}
{{- end -}}
{{ .Values.existingSecretKeys.lockUrl }}: {{ $url | b64enc }}
{{ .Values.existingSecretKeys.sinkUrl }}: {{ $sink | b64enc }}
{{- with .Values.lock.password }}
{{ $.Values.existingSecretKeys.lockPassword }}: {{ . | b64enc }}
{{- end }}
{{- with .Values.sink.password }}
{{ $.Values.existingSecretKeys.sinkPassword }}: {{ . | b64enc }}
{{- end }}
{{- end -}}
