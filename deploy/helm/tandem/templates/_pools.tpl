{{/* Fails when no pool runs some stage, or a pool asks for what cannot be. */}}
{{- define "tandem.checkTopology" -}}
{{- $stages := list }}
{{- $pools := list }}
{{- range $pool, $own := .Values.pools }}
{{- $settings := mergeOverwrite (deepCopy $.Values.poolDefaults) $own }}
{{- $pools = append $pools (printf "%s (%s)" $pool (join ", " $settings.stages)) }}
{{- if or (gt (int $settings.replicas) 0) $settings.autoscaling.enabled }}
{{- $stages = concat $stages $settings.stages }}
{{- end }}
{{- if and (gt (int $settings.shards.count) 1) (ne (join "," $settings.stages) "ffn") }}
{{- fail (printf "pools.%s.shards: %d parts of the FFN, but the pool runs %s: only a pool whose one stage is ffn can be divided." $pool (int $settings.shards.count) (join ", " $settings.stages)) }}
{{- end }}
{{- if and (eq $settings.backend "emulated") (not $settings.device) }}
{{- fail (printf "pools.%s.device: name a device of the catalog, such as h100-x8, or set pools.%s.backend to ggml." $pool $pool) }}
{{- end }}
{{- if and $settings.autoscaling.enabled (not $settings.autoscaling.metrics) }}
{{- fail (printf "pools.%s.autoscaling: give at least one of metrics, else nothing says when to scale (deploy/helm/examples has some)." $pool) }}
{{- end }}
{{- end }}
{{- range $stage := list "prefill" "attention" "ffn" }}
{{- if not (has $stage $stages) }}
{{- fail (printf "No pool runs stage %s, so no request could be served. The pools are: %s. Give one of them the stage, or add a pool with stages: [%s] and at least one replica." $stage (join "; " $pools) $stage) }}
{{- end }}
{{- end }}
{{- if and .Values.inferencePool.enabled (not .Values.inferencePool.endpointPicker.name) }}
{{- fail "inferencePool.endpointPicker.name: an InferencePool needs the Service of an endpoint picker." }}
{{- end }}
{{- if and .Values.gateway.autoscaling.enabled (not .Values.gateway.autoscaling.metrics) }}
{{- fail "gateway.autoscaling: give at least one of metrics, else nothing says when to scale (deploy/helm/examples has some)." }}
{{- end }}
{{- end }}

{{/* How a pool rolls. Devices are extended resources: their names have a slash. */}}
{{- define "tandem.poolStrategy" -}}
{{- $devices := false }}
{{- range $resource, $_ := .resources.limits }}
{{- if contains "/" $resource }}{{ $devices = true }}{{ end }}
{{- end }}
{{- if .strategy }}
{{- toYaml .strategy }}
{{- else if $devices }}
type: RollingUpdate
rollingUpdate: {maxSurge: 0, maxUnavailable: 25%}
{{- else }}
type: RollingUpdate
rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
{{- end }}
{{- end }}

{{/* (dict "root" $ "pool" NAME "settings" SETTINGS "shard" I) */}}
{{- define "tandem.workerArgs" -}}
{{- $settings := .settings }}
{{- $shards := int $settings.shards.count }}
- --stages={{ join "," $settings.stages }}
- --pool={{ .pool }}
- --worker-id=$(POD_NAME)
- --memory-class={{ $settings.memoryClass }}
- --listen=0.0.0.0:9200
- --advertise=$(POD_IP):9200
- --admin-listen=0.0.0.0:9300
- --metrics-listen=0.0.0.0:9464
- --router={{ include "tandem.routerAddress" .root }}
- --model-name={{ include "tandem.modelName" .root }}
- --backend={{ $settings.backend }}
{{- if eq $settings.backend "emulated" }}
{{- with .root.Values.emulation }}
- --device={{ $settings.device }}
- --model-shape={{ .modelShape }}
- --weights={{ .weights }}
- --numerics={{ if eq .numerics "model" }}model:{{ include "tandem.modelPath" $.root }}{{ else }}{{ .numerics }}{{ end }}
- --time-scale={{ .timeScale }}
- --perturbation={{ .perturbation }}
{{- end }}
{{- else }}
- --model={{ include "tandem.modelPath" .root }}
- --device={{ $settings.ggmlDevice }}
{{- end }}
{{- if int $settings.kvTokens }}
- --kv-tokens={{ int $settings.kvTokens }}
{{- end }}
{{- if gt $shards 1 }}
{{- if eq $settings.shards.by "columns" }}
- --column={{ .shard }}/{{ $shards }}
{{- else }}
- --layers={{ .shard }}/{{ $shards }}
{{- end }}
{{- end }}
- --drain-timeout-seconds={{ int .root.Values.drainSeconds }}
- --log-format={{ .root.Values.logFormat }}
{{- include "tandem.tlsArgs" .root }}
{{- include "tandem.args" $settings.args }}
{{- end }}
