{{/* Names, labels and references that several templates need. Names leave 13 of 63 characters for what is appended. */}}

{{- define "podlog.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride }}
{{- else if contains "podlog" .Release.Name -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-podlog" .Release.Name | trunc 50 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{/* Objects without a namespace have that of the release in their names, so that releases of the same name get along. */}}
{{- define "podlog.clusterName" -}}
{{ printf "%s-%s" .Release.Namespace (include "podlog.fullname" .) }}
{{- end -}}

{{/* What tells the pods of a release apart. podlog leaves out pods whose app.kubernetes.io/name is podlog: its own. */}}
{{- define "podlog.selector" -}}
app.kubernetes.io/name: podlog
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of an object: dict "root" . "component" "replica". */}}
{{- define "podlog.labels" -}}
{{ include "podlog.selector" . }}
app.kubernetes.io/version: {{ .root.Values.image.tag | default .root.Chart.AppVersion | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* metadata without name: labels and annotations. dict "root" . "component" c "annotations" (dict …) */}}
{{- define "podlog.meta" -}}
namespace: {{ .root.Release.Namespace }}
{{ include "podlog.metaOfCluster" . }}
{{- end -}}

{{/* The same for objects without a namespace. */}}
{{- define "podlog.metaOfCluster" -}}
{{- $annotations := merge (dict) (.annotations | default dict) .root.Values.commonAnnotations -}}
labels:
  {{- include "podlog.labels" . | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "podlog.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "podlog.fullname" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{- define "podlog.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "podlog.secret" -}}
{{ .Values.existingSecret | default (include "podlog.fullname" .) }}
{{- end -}}

{{/* A duration in milliseconds; the schema lets only one number with one unit through. */}}
{{- define "podlog.ms" -}}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000 -}}
{{- mul (regexFind "^[0-9]+" . | int64) (get $units (regexFind "[a-z]+$" .)) -}}
{{- end -}}

{{/* What the kubelet waits after SIGTERM, in seconds. */}}
{{- define "podlog.patience" -}}
{{- if .Values.terminationGracePeriodSeconds -}}
{{ .Values.terminationGracePeriodSeconds | int64 }}
{{- else -}}
{{ add 10 (div (add 999 (include "podlog.ms" .Values.settings.grace)) 1000) }}
{{- end -}}
{{- end -}}
