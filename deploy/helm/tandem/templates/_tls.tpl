{{/* Certificates of the links and API keys, as files of a pod. tls.yaml makes the certificate. */}}

{{- define "tandem.tlsSecret" -}}
{{- default (printf "%s-tls" (include "tandem.fullname" .)) .Values.tls.existingSecret }}
{{- end }}

{{- define "tandem.tlsFiles" -}}
tls-cert: /etc/tandem-tls/tls.crt
tls-key: /etc/tandem-tls/tls.key
tls-ca: /etc/tandem-tls/ca.crt
tls-name: {{ .Values.tls.name | quote }}
{{- end }}

{{/* Flags of every daemon. */}}
{{- define "tandem.tlsArgs" -}}
{{- if .Values.tls.enabled }}
{{- include "tandem.args" (include "tandem.tlsFiles" . | fromYaml) }}
{{- end }}
{{- end }}

{{/* The same for tandemctl, whoever starts it in the pod. */}}
{{- define "tandem.tlsEnv" -}}
{{- if .Values.tls.enabled }}
{{- range $flag, $value := include "tandem.tlsFiles" . | fromYaml }}
- {name: TANDEM_{{ $flag | upper | replace "-" "_" }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}
{{- end }}

{{/* Secrets of a pod, as (dict "volumes" LIST "mounts" LIST): (dict "root" $ "program" NAME) */}}
{{- define "tandem.secretFiles" -}}
{{- $volumes := list }}
{{- $mounts := list }}
{{- if .root.Values.tls.enabled }}
{{- $volumes = append $volumes (dict "name" "tls" "secret" (dict "secretName" (include "tandem.tlsSecret" .root) "defaultMode" 288)) }}
{{- $mounts = append $mounts (dict "name" "tls" "mountPath" "/etc/tandem-tls" "readOnly" true) }}
{{- end }}
{{- with .root.Values.apiKeys.existingSecret }}
{{- if eq $.program "tandem-gateway" }}
{{- $volumes = append $volumes (dict "name" "api-keys" "secret" (dict "secretName" . "defaultMode" 288)) }}
{{- $mounts = append $mounts (dict "name" "api-keys" "mountPath" "/etc/tandem-keys" "readOnly" true) }}
{{- end }}
{{- end }}
{{- toYaml (dict "volumes" $volumes "mounts" $mounts) }}
{{- end }}
