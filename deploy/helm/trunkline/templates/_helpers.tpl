{{- define "trunkline.labels" -}}
app.kubernetes.io/name: trunkline
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "trunkline.selector" -}}
app.kubernetes.io/name: trunkline
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: router
{{- end }}

{{- define "trunkline.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "trunkline.config" -}}
{{- $server := dict "drain_notice" .Values.noticeSeconds "drain_timeout" .Values.drainSeconds "workers" (int .Values.workers) -}}
{{- if .Values.tlsSecret -}}
{{- $tls := dict "cert" "/etc/trunkline/tls/tls.crt" "key" "/etc/trunkline/tls/tls.key" -}}
{{- if .Values.clientCaSecret -}}
{{- $_ := set $tls "client_ca" "/etc/trunkline/client-ca/ca.crt" -}}
{{- $_ := set $tls "require_client_cert" true -}}
{{- end -}}
{{- $_ := set $server "tls" $tls -}}
{{- end -}}
{{- $own := dict "server" (mergeOverwrite (deepCopy (.Values.config.server | default dict)) $server) -}}
{{- mergeOverwrite (deepCopy .Values.config) $own | toYaml -}}
{{- end }}

{{- define "trunkline.env" -}}
{{- range $name, $from := .Values.secretEnv }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef:
      name: {{ required (printf "secretEnv.%s.secret is missing" $name) $from.secret }}
      key: {{ required (printf "secretEnv.%s.key is missing" $name) $from.key }}
{{- end }}
{{- end }}

{{- define "trunkline.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "trunkline.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "trunkline.configVolumes" -}}
- name: config
  configMap:
    name: {{ .Release.Name }}-trunkline
- name: tmp
  emptyDir: {}
{{- range .Values.secretFiles }}
- name: secret-{{ . }}
  secret:
    secretName: {{ . }}
{{- end }}
{{- end }}

{{- define "trunkline.configMounts" -}}
- name: config
  mountPath: /etc/trunkline/config
  readOnly: true
- name: tmp
  mountPath: /tmp
{{- range .Values.secretFiles }}
- name: secret-{{ . }}
  mountPath: /etc/trunkline/secrets/{{ . }}
  readOnly: true
{{- end }}
{{- end }}
