{{/* Parts of pods that run podlog: replicas, the migration and the test. */}}

{{/* Where URLs and passwords come from: dict "root" . "secret" NAME. */}}
{{- define "podlog.secretEnv" -}}
{{- $keys := .root.Values.existingSecretKeys -}}
{{- $passwords := .secret -}}
{{- $lockPassword := $keys.lockPassword -}}
{{- $sinkPassword := $keys.sinkPassword -}}
{{- if .root.Values.mysql.enabled -}}
{{- $passwords = printf "%s-mysql" (include "podlog.fullname" .root) -}}
{{- $lockPassword = "password" -}}
{{- $sinkPassword = "password" -}}
{{- end -}}
- name: PODLOG_LOCK
  valueFrom: {secretKeyRef: {name: {{ .secret }}, key: {{ $keys.lockUrl }}}}
- name: PODLOG_SINK
  valueFrom: {secretKeyRef: {name: {{ .secret }}, key: {{ $keys.sinkUrl }}}}
- name: PODLOG_LOCK_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ $passwords }}, key: {{ $lockPassword }}, optional: true}}
- name: PODLOG_SINK_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ $passwords }}, key: {{ $sinkPassword }}, optional: true}}
{{- end -}}

{{/* The field securityContext, or nothing if the context is empty: dict "root" . "context" VALUE. On OpenShift the SCC chooses users and groups. */}}
{{- define "podlog.securityContext" -}}
{{- $context := .context | default dict -}}
{{- if eq .root.Values.platform "openshift" -}}
{{- $context = omit $context "runAsUser" "runAsGroup" "fsGroup" -}}
{{- end -}}
{{- with $context -}}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* Everything of a container but its name, arguments, probes and settings file. */}}
{{- define "podlog.container" -}}
image: {{ include "podlog.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
env:
  - name: POD_NAME
    valueFrom: {fieldRef: {fieldPath: metadata.name}}
  {{- include "podlog.secretEnv" . | nindent 2 }}
  {{- with .root.Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .root.Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "podlog.securityContext" (dict "root" .root "context" .root.Values.securityContext) }}
{{ . }}
{{- end }}
resources:
  {{- toYaml .root.Values.resources | nindent 2 }}
{{- end -}}

{{/* Where such pods run, and as whom. */}}
{{- define "podlog.place" -}}
enableServiceLinks: false
{{- with include "podlog.securityContext" (dict "root" . "context" .Values.podSecurityContext) }}
{{ . }}
{{- end }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* The settings file: keys are flags of `podlog run`. JSON strings are TOML strings. Nothing here is secret. */}}
{{- define "podlog.settings" -}}
cluster = {{ toJson .Values.cluster }}
{{- with .Values.namespaces }}
namespace = {{ toJson . }}
{{- end }}
http = {{ printf "%s:%d" .Values.http.address (int64 .Values.http.port) | toJson }}
no-migrate = {{ ne .Values.migrate.mode "replicas" }}
{{- range $name, $value := .Values.settings }}
{{- if not (or (kindIs "invalid" $value) (eq (toString $value) "")) }}
{{ $name }} = {{ toJson $value }}
{{- end }}
{{- end }}
{{- end -}}
