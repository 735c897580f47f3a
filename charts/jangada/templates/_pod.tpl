{{/* What pods of API, workers, dispatcher and migrations share. */}}
{{- define "jangada.secretEnv" -}}
{{- $root := index . 0 -}}
- name: {{ index . 1 }}
  valueFrom:
    secretKeyRef:
      name: {{ include "jangada.secret" (list $root (index . 2)) }}
      key: {{ index . 3 }}
{{- end }}

{{/* What all containers of ours mount: a folder to write to, and the certificates that are trusted. */}}
{{- define "jangada.baseMounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if .Values.trust.configMap }}
- {name: trust, mountPath: /etc/jangada/trust, readOnly: true}
{{- end }}
{{- end }}

{{- define "jangada.baseVolumes" -}}
- name: tmp
  emptyDir: {}
{{- with .Values.trust.configMap }}
- name: trust
  configMap: {name: {{ . }}}
{{- end }}
{{- end }}

{{- define "jangada.baseEnv" -}}
{{- if .Values.trust.configMap }}
- {name: SSL_CERT_FILE, value: /etc/jangada/trust/{{ .Values.trust.key }}}
{{- end }}
{{- end }}

{{- define "jangada.databaseEnv" -}}
{{- $database := .Values.database -}}
{{ include "jangada.secretEnv" (list . "JANGADA_DATABASE__URL" $database.existingSecret (ternary "database-url" $database.existingSecret.key (empty $database.existingSecret.name))) }}
{{- with $database.directKey }}
{{ include "jangada.secretEnv" (list $ "JANGADA_DATABASE__DIRECT_URL" $database.existingSecret .) }}
{{- end }}
- name: JANGADA_DATABASE__TRANSACTION_POOLING
  value: {{ $database.transactionPooling | quote }}
- name: JANGADA_TELEMETRY__LOG_FORMAT
  value: json
{{- include "jangada.baseEnv" . }}
{{- range $name, $value := .Values.settings }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "jangada.env" -}}
{{ include "jangada.databaseEnv" . }}
{{ include "jangada.secretEnv" (list . "JANGADA_VALKEY__URL" .Values.valkey.existingSecret (ternary "valkey-url" .Values.valkey.existingSecret.key (empty .Values.valkey.existingSecret.name))) }}
{{ include "jangada.secretEnv" (list . "JANGADA_AUTH__MASTER_KEY" .Values.masterKey.existingSecret (ternary "master-key" .Values.masterKey.existingSecret.key (empty .Values.masterKey.existingSecret.name))) }}
- name: JANGADA_STORAGE__URL
  value: {{ .Values.storage.url | default "file:///var/lib/jangada/files" | quote }}
{{- if .Values.storage.existingSecret.name }}
{{ include "jangada.secretEnv" (list . "JANGADA_STORAGE__OPTIONS" .Values.storage.existingSecret .Values.storage.existingSecret.key) }}
{{- end }}
{{- if .Values.mail.existingSecret.name }}
{{ include "jangada.secretEnv" (list . "JANGADA_MAIL__URL" .Values.mail.existingSecret .Values.mail.existingSecret.key) }}
- name: JANGADA_MAIL__SENDER
  value: {{ .Values.mail.sender | quote }}
{{- end }}
{{- end }}

{{- define "jangada.envFrom" -}}
{{- with .Values.settingsSecret -}}
envFrom:
  - secretRef: {name: {{ . }}}
{{- end }}
{{- end }}

{{/* Waits for the schema that the image needs, and says why it waits: (list $ image). */}}
{{- define "jangada.waitForSchema" -}}
{{- $root := index . 0 -}}
- name: wait-for-schema
  image: {{ include "jangada.image" . }}
  command: [jangada, migrate, --check, --wait, "{{ $root.Values.migrate.waitSeconds }}"]
  {{- include "jangada.containerSecurity" $root | nindent 2 }}
  resources: {{- toYaml $root.Values.migrate.resources | nindent 4 }}
  env: {{- include "jangada.databaseEnv" $root | nindent 4 }}
  {{- with include "jangada.envFrom" $root }}{{ . | nindent 2 }}{{ end }}
  volumeMounts: {{- include "jangada.baseMounts" $root | nindent 4 }}
{{- end }}

{{- define "jangada.mounts" -}}
{{ include "jangada.baseMounts" . }}
{{- if not .Values.storage.url }}
- {name: files, mountPath: /var/lib/jangada}
{{- end }}
{{- end }}

{{- define "jangada.volumes" -}}
{{ include "jangada.baseVolumes" . }}
{{- if not .Values.storage.url }}
- name: files
  persistentVolumeClaim:
    claimName: {{ .Values.storage.existingClaim | default (printf "%s-dev-files" (include "jangada.fullname" .)) }}
{{- end }}
{{- end }}
