{{- define "jangada.migrateSpec" -}}
{{- $labels := list $ "migrate" -}}
# Each run tries for a quarter of an hour to be the only one, and fifteen times to get a table's lock.
backoffLimit: 6
template:
  metadata:
    labels: {{- include "jangada.selector" $labels | nindent 6 }}
      {{- with .Values.commonLabels }}{{ toYaml . | nindent 6 }}{{ end }}
  spec:
    restartPolicy: Never
    {{- include "jangada.podSecurity" . | nindent 4 }}
    containers:
      - name: migrate
        image: {{ include "jangada.image" (list $ .Values.api.image) }}
        command: [jangada, migrate, --wait, "{{ .Values.migrate.waitSeconds }}"]
        {{- include "jangada.containerSecurity" . | nindent 8 }}
        resources: {{- toYaml .Values.migrate.resources | nindent 10 }}
        env: {{- include "jangada.databaseEnv" . | nindent 10 }}
        {{- with include "jangada.envFrom" . }}{{ . | nindent 8 }}{{ end }}
        volumeMounts: {{- include "jangada.baseMounts" . | nindent 10 }}
    volumes: {{- include "jangada.baseVolumes" . | nindent 6 }}
{{- end }}
