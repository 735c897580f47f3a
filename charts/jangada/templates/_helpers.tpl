{{/* Names and labels. A component is called with (list $ "api"); labels of its own may be a third. */}}
{{- define "jangada.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "jangada.name" -}}
{{- $root := index . 0 -}}
{{ include "jangada.fullname" $root }}-{{ index . 1 }}
{{- end }}

{{- define "jangada.selector" -}}
app.kubernetes.io/name: jangada
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "jangada.labels" -}}
{{ include "jangada.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/part-of: jangada
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version }}
{{- with merge (dict) (len . | eq 3 | ternary (last .) dict) (index . 0).Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Of pods that an upgrade leaves alone, so without versions. */}}
{{- define "jangada.steadyLabels" -}}
{{ include "jangada.selector" . }}
app.kubernetes.io/part-of: jangada
{{- with (index . 0).Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "jangada.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "jangada.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end }}

{{/* The lease of the operators. Those of one namespace and those of all of them are never the same. */}}
{{- define "jangada.lease" -}}
{{ include "jangada.name" (list . "operator") }}{{ ternary "-of-all" "" .Values.operator.clusterWide }}
{{- end }}

{{/* An image: (list $ .Values.api.image). */}}
{{- define "jangada.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $path := printf "%s%s" (ternary "" (printf "%s/" $root.Values.global.imageRegistry) (empty $root.Values.global.imageRegistry)) $image.repository -}}
{{- if $image.digest -}}
{{ $path }}@{{ $image.digest }}
{{- else -}}
{{ $path }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* The secret that holds something: the one that is named, or that of `dev`. */}}
{{- define "jangada.secret" -}}
{{- $root := index . 0 -}}
{{- $given := index . 1 -}}
{{- $given.name | default (printf "%s-dev" (include "jangada.fullname" $root)) -}}
{{- end }}

{{- define "jangada.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}
