{{/* Only `helm test` makes these. What succeeds goes; a pod that fails stays to be read, and says why. */}}
{{- define "jangada.testHook" -}}
helm.sh/hook: test
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
helm.sh/hook-output-log-policy: hook-failed
{{- end }}

{{/* The names of the pools that an operator sizes, as a list; nothing where all have a fixed size. */}}
{{- define "jangada.sizedPools" -}}
{{- range $pool := .Values.workers }}
{{- if ne (int $pool.replicas.min) (int $pool.replicas.max) }}
- {{ include "jangada.name" (list $ (printf "worker-%s" $pool.name)) }}
{{- end }}
{{- end }}
{{- end }}
