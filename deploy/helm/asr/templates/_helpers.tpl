{{/* Labels of a component; dict "root" $ "component" NAME. */}}
{{- define "asr.selector" -}}
app.kubernetes.io/name: asr
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "asr.labels" -}}
{{ include "asr.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{- define "asr.broker" -}}
{{ .Release.Name }}-broker
{{- end }}

{{/* The protocol of the gateways, and the name of their port. */}}
{{- define "asr.scheme" -}}
{{ ternary "https" "http" (ne .Values.gateway.tlsSecret "") }}
{{- end }}

{{/* A served name as a name of Kubernetes: whisper-tiny.en, iic/SenseVoiceSmall. */}}
{{- define "asr.dns" -}}
{{ . | lower | replace "/" "-" | replace "." "-" | replace "_" "-" | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* A value of a setting as text. Helm reads numbers as floating-point ones, and would write a large
     one as 1e+06. */}}
{{- define "asr.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . }}{{ else }}{{ toString . }}{{ end }}
{{- end }}

{{/* Settings of a process; dict "root" $ "settings" MAP. Later ones replace earlier ones. */}}
{{- define "asr.environment" -}}
{{- $settings := .root.Values.settings -}}
{{- range $name, $value := dict
  "AUTH_TOKENS_FILE" "tokensSecret"
  "MAX_CONNECTIONS" "gateway.maxConnections"
  "METRICS_PORT" "metricsPort"
  "PORT" "gateway.service.port"
  "SYSTEM_ID" "systemId"
  "TLS_CERT_FILE" "gateway.tlsSecret"
  "TLS_KEY_FILE" "gateway.tlsSecret" }}
{{- if hasKey $settings $name }}
{{- fail (printf "settings: set %s instead of %s" $value $name) }}
{{- end }}
{{- end }}
{{- $broker := include "asr.broker" .root -}}
{{- $base := dict
  "SYSTEM_ID" .root.Values.systemId
  "LOG_FORMAT" "json"
  "METRICS_HOST" "0.0.0.0"
  "METRICS_PORT" (.root.Values.metricsPort | toString)
  "BUS_KEYS_DIR" "/keys"
  "BROKER_FRONTEND" (printf "tcp://%s:7101" $broker)
  "BROKER_BACKEND" (printf "tcp://%s:7102" $broker)
  "BROKER_EVENTS" (printf "tcp://%s:7103" $broker) -}}
{{- range $name, $value := mergeOverwrite $base (deepCopy .root.Values.settings) (deepCopy .settings) }}
- name: {{ $name }}
  value: {{ include "asr.text" $value | quote }}
{{- end }}
{{- end }}

{{/* The files of one role; dict "root" $ "roles" LIST of public keys, "role" NAME. */}}
{{- define "asr.keys" -}}
- name: keys
  secret:
    secretName: {{ .root.Values.keysSecret }}
    defaultMode: 0440
    items:
      {{- range .publics }}
      - {key: {{ . }}.public, path: {{ . }}.public}
      {{- end }}
      - {key: {{ .role }}.secret, path: {{ .role }}.secret}
{{- end }}

{{/* Pod settings that all have in common; dict "root" $ "component" NAME "values" MAP. */}}
{{- define "asr.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
topologySpreadConstraints:
  {{- range .root.Values.topologySpread.keys }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "asr.selector" (dict "root" $.root "component" $.component) | nindent 8 }}
  {{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "asr.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Probes of a process without HTTP of its own: its metrics answer. The argument is its port. */}}
{{- define "asr.metricsProbes" -}}
startupProbe:
  httpGet: {path: /metrics, port: {{ . }}}
  periodSeconds: 2
  failureThreshold: 150
{{ include "asr.metricsLiveness" . }}
{{- end }}

{{- define "asr.metricsLiveness" -}}
livenessProbe:
  httpGet: {path: /metrics, port: {{ . }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
{{- end }}

{{/* Who may scrape metrics, in a NetworkPolicy. */}}
{{- define "asr.metricsIngress" -}}
- ports: [{port: metrics}]
  {{- with .Values.networkPolicy.prometheus }}
  from: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
