{{/* What a schema can't say. Each message names the values and the mend. */}}
{{- define "jangada.checks" -}}
{{- $values := .Values -}}
{{- range $key := list "database" "valkey" "masterKey" }}
  {{- if and (not $values.dev.enabled) (not (index $values $key "existingSecret" "name")) }}
    {{- fail (printf "%s.existingSecret.name is needed: a secret with its URL or key (dev.enabled=true makes one up, for trying out)" $key) }}
  {{- end }}
{{- end }}
{{- if and (not $values.dev.enabled) (not $values.storage.url) (not $values.storage.existingClaim) }}
  {{- fail "storage.url or storage.existingClaim is needed: uploaded files have to be somewhere" }}
{{- end }}
{{- if and $values.storage.url $values.storage.existingClaim }}
  {{- fail "storage.url and storage.existingClaim exclude each other: files are in one place" }}
{{- end }}
{{- if and $values.production $values.dev.enabled }}
  {{- fail "production and dev.enabled exclude each other: the servers of dev are single pods with made-up secrets" }}
{{- end }}
{{- if and $values.production (not $values.api.autoscaling.enabled) (lt (int $values.api.replicas) 2) }}
  {{- fail "production needs api.replicas of 2 or more, or api.autoscaling: one replica can't be rolled without a gap" }}
{{- end }}
{{- if and $values.monitoring.rules (not $values.monitoring.podMonitors) }}
  {{- fail "monitoring.rules needs monitoring.podMonitors: the alerts go by the labels that those give" }}
{{- end }}
{{- if and $values.monitoring.podMonitors $values.networkPolicy.enabled (not $values.networkPolicy.metricsFrom) }}
  {{- fail "monitoring.podMonitors needs networkPolicy.metricsFrom: nobody else may reach the metrics" }}
{{- end }}
{{- if and $values.edge.httpRoute.enabled (not $values.edge.httpRoute.parentRefs) }}
  {{- fail "edge.httpRoute.enabled needs edge.httpRoute.parentRefs: the gateway that the route is of" }}
{{- end }}
{{- if and $values.edge.ingress.enabled (not $values.edge.ingress.hosts) }}
  {{- fail "edge.ingress.enabled needs edge.ingress.hosts: an Ingress without rules is refused by the API server" }}
{{- end }}
{{- if lt (int $values.api.autoscaling.max) (int $values.api.autoscaling.min) }}
  {{- fail "api.autoscaling.max is below api.autoscaling.min" }}
{{- end }}
{{- range $pool := $values.workers }}
  {{- if lt (int $pool.replicas.max) (int $pool.replicas.min) }}
    {{- fail (printf "workers: pool %s has replicas.max below replicas.min" $pool.name) }}
  {{- end }}
{{- end }}
{{- $names := list }}
{{- range $pool := $values.workers }}
  {{- if has $pool.name $names }}
    {{- fail (printf "workers: two pools are called %s" $pool.name) }}
  {{- end }}
  {{- $names = append $names $pool.name }}
{{- end }}
{{- end }}
