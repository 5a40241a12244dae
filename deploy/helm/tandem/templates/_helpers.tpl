{{/* Names, labels and what all pods have in common. */}}

{{- define "tandem.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* 40 characters: a pool's name, a shard's number and a pod's suffix come behind it, and a name has 63. */}}
{{- define "tandem.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "tandem.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "tandem.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What finds a component's pods. (dict "root" $ "component" "worker" "pool" NAME "shard" I); pool and shard may be left out. */}}
{{- define "tandem.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tandem.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- with .pool }}
tandem/pool: {{ . }}
{{- end }}
{{- if hasKey . "shard" }}
tandem/shard: {{ .shard | quote }}
{{- end }}
{{- end }}

{{- define "tandem.labels" -}}
{{ include "tandem.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: tandem
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "tandem.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "tandem.fullname" .) .Values.serviceAccount.name }}
{{- else }}{{ default "default" .Values.serviceAccount.name }}{{ end }}
{{- end }}

{{- define "tandem.image" -}}
{{- $image := printf "%s/%s" .Values.image.registry .Values.image.name }}
{{- if .Values.image.digest }}{{ $image }}@{{ .Values.image.digest }}
{{- else }}{{ $image }}:{{ default .Chart.AppVersion .Values.image.tag }}{{ end }}
{{- end }}

{{- define "tandem.modelName" -}}
{{- default (trimSuffix ".gguf" .Values.model.file) .Values.model.name }}
{{- end }}

{{- define "tandem.modelPath" -}}
{{- if eq .Values.model.source "builtin" }}/usr/share/tandem/models/{{ .Values.model.file }}
{{- else }}/model/{{ .Values.model.file }}{{ end }}
{{- end }}

{{- define "tandem.routerAddress" -}}
{{ include "tandem.fullname" . }}-router:9000
{{- end }}

{{/* true or nothing: (dict "root" $ "setting" true|false|"auto" "api" GROUP/VERSION/KIND) */}}
{{- define "tandem.wanted" -}}
{{- if eq (toString .setting) "auto" }}{{ if .root.Capabilities.APIVersions.Has .api }}true{{ end }}
{{- else if .setting }}true{{ end }}
{{- end }}

{{/* Further flags of a daemon, in the order of their names. Numbers by toJson: Go would write 1048576 as 1.048576e+06. */}}
{{- define "tandem.args" -}}
{{- range $flag, $value := . }}
- {{ printf "--%s=%s" $flag (kindIs "string" $value | ternary $value (toJson $value)) | quote }}
{{- end }}
{{- end }}

{{/* Where pods go: (dict "root" $ "settings" (a pool, gateway or router) "labels" SELECTOR) */}}
{{- define "tandem.scheduling" -}}
{{- with .settings.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- if .settings.topologySpreadConstraints }}
{{- range .settings.topologySpreadConstraints }}
  - {{- toYaml . | nindent 4 }}
    {{- if not .labelSelector }}
    labelSelector:
      matchLabels: {{- $.labels | nindent 8 }}
    {{- end }}
{{- end }}
{{- else }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- .labels | nindent 8 }}
{{- end }}
{{- with .settings.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .settings.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* Pod Security `restricted`, for every pod of the chart. */}}
{{- define "tandem.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "tandem.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* A daemon's pod template: (dict "root" $ "settings" ... "labels" SELECTOR "metadata" LABELS "program" "tandem-worker" "args" LIST (text)
     "ports" (dict NAME PORT) "health" PORTNAME "model" true "graceSeconds" 1 "preStopSleepSeconds" 0 "annotations" (dict) "volumes" TEXT "mounts" TEXT) */}}
{{- define "tandem.podTemplate" -}}
{{- $root := .root }}
{{- $settings := .settings }}
metadata:
  labels:
    {{- .metadata | nindent 4 }}
    {{- with $settings.podLabels }}{{ toYaml . | nindent 4 }}{{ end }}
  annotations:
    kubectl.kubernetes.io/default-container: {{ .program }}
    {{- with .annotations }}{{ toYaml . | nindent 4 }}{{ end }}
    {{- with $settings.podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  serviceAccountName: {{ include "tandem.serviceAccountName" $root }}
  {{- include "tandem.podSecurity" $root | nindent 2 }}
  terminationGracePeriodSeconds: {{ .graceSeconds }}
  {{- with $root.Values.image.pullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- include "tandem.scheduling" . | nindent 2 }}
  {{- if and .model (eq $root.Values.model.source "download") }}
  initContainers:
    {{- include "tandem.downloadModel" $root | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .program }}
      image: {{ include "tandem.image" $root }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      command: [{{ .program }}]
      args:
        {{- .args | nindent 8 }}
      env:
        - name: POD_NAME
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        - name: POD_IP
          valueFrom: {fieldRef: {fieldPath: status.podIP}}
        {{- with include "tandem.tlsEnv" $root }}{{ . | nindent 8 }}{{ end }}
        {{- with $settings.env }}{{ toYaml . | nindent 8 }}{{ end }}
      ports:
        {{- range $name, $port := .ports }}
        - {name: {{ $name }}, containerPort: {{ $port }}, protocol: TCP}
        {{- end }}
      # /livez is answered by the daemon's own event loop. /readyz: a gateway knows a topology that serves, a router serves, a
      # worker has loaded, is registered and, where it decodes, reaches an FFN worker; its body says what is missing.
      startupProbe:
        httpGet: {path: /livez, port: {{ .health }}}
        periodSeconds: 1
        failureThreshold: {{ $settings.startupSeconds | int }}
      livenessProbe:
        httpGet: {path: /livez, port: {{ .health }}}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: {{ .health }}}
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 3
      {{- if and .preStopSleepSeconds (semverCompare ">=1.30.0-0" $root.Capabilities.KubeVersion.Version) }}
      lifecycle:
        preStop:
          sleep: {seconds: {{ .preStopSleepSeconds | int }}}
      {{- end }}
      resources: {{- toYaml $settings.resources | nindent 8 }}
      securityContext: {{- include "tandem.containerSecurity" $root | nindent 8 }}
      {{- $secrets := include "tandem.secretFiles" (dict "root" $root "program" .program) | fromYaml }}
      {{- $mounts := $secrets.mounts }}
      {{- if and .model (ne $root.Values.model.source "builtin") }}
      {{- $mount := dict "name" "model" "mountPath" "/model" "readOnly" true }}
      {{- if and (eq $root.Values.model.source "pvc") $root.Values.model.pvc.subPath }}
      {{- $_ := set $mount "subPath" $root.Values.model.pvc.subPath }}
      {{- end }}
      {{- $mounts = append $mounts $mount }}
      {{- end }}
      {{- with concat $mounts (default list .mounts) (default list $settings.volumeMounts) }}
      volumeMounts: {{- toYaml . | nindent 8 }}
      {{- end }}
  {{- $volumes := $secrets.volumes }}
  {{- if .model }}
  {{- $volumes = concat $volumes (include "tandem.modelVolumes" $root | fromYamlArray) }}
  {{- end }}
  {{- with concat $volumes (default list .volumes) (default list $settings.volumes) }}
  volumes: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "tandem.modelVolumes" -}}
{{- $model := .Values.model }}
{{- if eq $model.source "pvc" }}
- name: model
  persistentVolumeClaim: {claimName: {{ required "model.source is pvc: name the claim in model.pvc.claimName" $model.pvc.claimName }}, readOnly: true}
{{- else if eq $model.source "image" }}
- name: model
  image:
    reference: {{ required "model.source is image: name the image in model.image.reference" $model.image.reference }}
    pullPolicy: {{ $model.image.pullPolicy }}
{{- else if eq $model.source "download" }}
- name: model
  emptyDir: {}
{{- else }}
[]
{{- end }}
{{- end }}

{{/* Fetches the model into the pod's own volume; a file whose sum is another never gets its name, and the pod says so. */}}
{{- define "tandem.downloadModel" -}}
{{- $download := .Values.model.download }}
- name: model
  image: {{ required "model.source is download: name an image with sh, sha256sum and curl or wget in model.download.image" $download.image }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command:
    - sh
    - -euc
    - |
      part=/model/download
      if command -v curl >/dev/null; then curl -fsSL --retry 5 -o "$part" "$URL"; else wget -q -O "$part" "$URL"; fi
      sum=$(sha256sum "$part" | cut -d' ' -f1)
      if [ "$sum" != "$SHA256" ]; then
        echo "$URL: its sha256 is $sum, not $SHA256" >&2
        rm "$part"
        exit 1
      fi
      mv "$part" "/model/$FILE"
  env:
    - {name: URL, value: {{ required "model.source is download: give model.download.url" $download.url | quote }}}
    - {name: SHA256, value: {{ required "model.source is download: give model.download.sha256" $download.sha256 | quote }}}
    - {name: FILE, value: {{ .Values.model.file | quote }}}
  resources: {{- toYaml $download.resources | nindent 4 }}
  securityContext: {{- include "tandem.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - {name: model, mountPath: /model}
{{- end }}

{{/* (dict "root" $ "name" NAME "labels" LABELS "selector" SELECTOR) */}}
{{- define "tandem.podDisruptionBudget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- .labels | nindent 4 }}
spec:
  maxUnavailable: {{ .root.Values.podDisruptionBudget.maxUnavailable }}
  selector:
    matchLabels: {{- .selector | nindent 6 }}
{{- end }}

{{/* (dict "root" $ "name" NAME "labels" LABELS "autoscaling" SETTINGS) */}}
{{- define "tandem.horizontalPodAutoscaler" -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- .labels | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ .name }}}
  minReplicas: {{ .autoscaling.minReplicas | int }}
  maxReplicas: {{ .autoscaling.maxReplicas | int }}
  metrics: {{- toYaml .autoscaling.metrics | nindent 4 }}
  {{- with .autoscaling.behavior }}
  behavior: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
