{{/* Rules of NetworkPolicies. Somewhere: (list $ "database"). */}}
{{- define "jangada.egressTo" -}}
{{- $there := index (index . 0).Values.networkPolicy (index . 1) -}}
- ports:
    {{- range $there.ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with $there.to }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "jangada.egressDns" -}}
{{- $dns := .Values.networkPolicy.dns -}}
- ports:
    {{- range $dns.ports }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with $dns.to }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "jangada.egressPlatform" -}}
{{ include "jangada.egressDns" . }}
{{ include "jangada.egressTo" (list . "database") }}
{{ include "jangada.egressTo" (list . "valkey") }}
{{- if .Values.storage.url }}
{{ include "jangada.egressTo" (list . "storage") }}
{{- end }}
{{- if .Values.mail.existingSecret.name }}
{{ include "jangada.egressTo" (list . "mail") }}
{{- end }}
{{- with .Values.networkPolicy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "jangada.ingressMetrics" -}}
{{- with .Values.networkPolicy.metricsFrom -}}
- ports:
    - {port: management, protocol: TCP}
  from: {{- toYaml . | nindent 4 }}
{{- end }}
{{- end }}

{{/* Head of a policy for a component: (list $ "api"). */}}
{{- define "jangada.policy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "jangada.name" . }}
  labels: {{- include "jangada.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels: {{- include "jangada.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
{{- end }}
