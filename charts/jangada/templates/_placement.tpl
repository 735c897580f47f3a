{{/* Of a pod's metadata: (list $ "api" .Values.api). */}}
{{- define "jangada.podMetadata" -}}
{{- $root := index . 0 -}}
{{- $labels := include "jangada.own" (list $root (index . 2) "podLabels") | fromYaml -}}
labels: {{- include "jangada.labels" (list $root (index . 1) $labels) | nindent 2 }}
{{- with include "jangada.own" (list $root (index . 2) "podAnnotations") }}
annotations: {{- . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A component's value, else that for all: (list $ .Values.api "affinity"). Nothing, where it is empty. */}}
{{- define "jangada.own" -}}
{{- $own := index . 1 -}}
{{- $key := index . 2 -}}
{{- with hasKey $own $key | ternary (get $own $key) (index (index . 0).Values $key) -}}
{{ toYaml . }}
{{- end -}}
{{- end }}

{{/* What every pod has; one of a component without values of its own. */}}
{{- define "jangada.podSecurity" -}}
{{ include "jangada.pod" (list . dict) }}
{{- end }}

{{/* What every pod has, and where it runs: (list $ .Values.api). */}}
{{- define "jangada.pod" -}}
{{- $values := (index . 0).Values -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $values.global.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- $pod := . }}
{{- with include "jangada.own" (append $pod "priorityClassName") }}
priorityClassName: {{ . }}
{{- end }}
{{- range $key := list "nodeSelector" "tolerations" "affinity" }}
{{- with include "jangada.own" (append $pod $key) }}
{{ $key }}: {{- . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "jangada.spread" -}}
{{- $selector := include "jangada.selector" . -}}
topologySpreadConstraints:
  {{- range (index . 0).Values.spreadOver }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- $selector | nindent 8 }}
  {{- end }}
{{- end }}
