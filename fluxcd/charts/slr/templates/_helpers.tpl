{{- define "slr.labels" -}}
{{ include "slr.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "slr.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* What every container of Saleor has in common. */}}
{{- define "slr.container" -}}
image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
  - name: DJANGO_SETTINGS_MODULE
    value: custom_settings
envFrom:
  - secretRef:
      name: {{ .Values.existingSecretName }}
securityContext:
  allowPrivilegeEscalation: false
  capabilities:
    drop: [ALL]
volumeMounts:
  - name: settings
    mountPath: /app/custom_settings.py
    subPath: custom_settings.py
{{- end }}

{{/* What every pod has in common, beside its containers. */}}
{{- define "slr.pod" -}}
# Nothing of it talks to Kubernetes.
automountServiceAccountToken: false
volumes:
  - name: settings
    configMap:
      name: {{ .Values.settingsConfigMapName }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
