{{/* The name of all objects of the release. */}}
{{- define "harvester.name" -}}
{{- if contains "harvester" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-harvester" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* The labels that never change, for selectors. Pods also have app.kubernetes.io/component. */}}
{{- define "harvester.selector" -}}
app.kubernetes.io/name: harvester
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "harvester.metadata" -}}
name: {{ include "harvester.name" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "harvester.selector" . | nindent 2 }}
  app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .Release.Service }}
  helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* "true" in a mode with pods that always run, and that Prometheus can scrape. */}}
{{- define "harvester.alwaysRuns" -}}
{{- if has .Values.mode (list "service" "replicas") }}true{{ end }}
{{- end }}

{{/* harvester.toml: what the chart decides, then the value "config". */}}
{{- define "harvester.toml" -}}
# The chart sets these.
{{ if .Values.secrets.ledger }}state_file = "/run/secrets/ledger/url"{{ else }}state = "/data/ledger.db"{{ end }}
api_key_dir = "/run/secrets/braze"

{{ required "config is required: the content of harvester.toml" .Values.config }}
{{- end }}

{{/* The places of workspaces that have their own, as JSON. */}}
{{- define "harvester.places" -}}
{{- $places := list }}
{{- range . }}{{ with .out }}{{ $places = append $places . }}{{ end }}{{ end }}
{{- toJson $places }}
{{- end }}

{{/* The settings of harvester.toml as JSON. Fails if the file is not valid, for example if a setting occurs twice. */}}
{{- define "harvester.settings" -}}
{{- $settings := include "harvester.toml" . | fromToml }}
{{- if $settings.Error }}{{ fail (printf "config is not valid: %s" $settings.Error) }}{{ end }}
{{- $workspaces := $settings.workspaces | default dict | values }}
{{- range append $workspaces ($settings.workspace_defaults | default dict) }}
{{- if .api_key }}{{ fail "api_key in config would be readable in the ConfigMap: use secrets.apiKeys" }}{{ end }}
{{- end }}
{{- if .Values.secrets.ledger }}
{{- range $place := append (include "harvester.places" $workspaces | fromJsonArray) ($settings.out | default "./harvest") }}
{{- if not (contains "://" $place) }}{{ fail (printf "out must be a bucket, because no volume outlives the pods: %s" $place) }}{{ end }}
{{- end }}
{{- end }}
{{- toJson $settings }}
{{- end }}

{{/* The connections that a NetworkPolicy allows to pods. */}}
{{- define "harvester.egress" -}}
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
- ports:
    {{- range .Values.networkPolicy.egressPorts }}
    - {port: {{ . }}}
    {{- end }}
{{- end }}

{{- define "harvester.webPort" -}}
{{- $settings := include "harvester.settings" . | fromJson }}
{{- $settings.web_port | default 8080 | int }}
{{- end }}

{{/* The value "env" as variables of a container. Fails for a name that another value is for. */}}
{{- define "harvester.env" -}}
{{- range $name, $value := .Values.env }}
{{- $upper := upper $name }}
{{- $use := "" }}
{{- if eq $upper "TMPDIR" }}
{{- $use = "the chart sets it; temporaryStorage is its size" }}
{{- else if regexMatch "^(HARVESTER_STATE(_FILE)?|PGPASSWORD)$" $upper }}
{{- $use = "use secrets.ledger, a secret that contains the URL of the database" }}
{{- else if regexMatch "^(BRAZE_API_KEY|HARVESTER_.*API_KEY(_FILE|_DIR)?)$" $upper }}
{{- $use = "use secrets.apiKeys, a secret that contains the key of each workspace" }}
{{- else if regexMatch "^(BRAZE|HARVESTER)_" $upper }}
{{- $use = "variables override harvester.toml; set it in config" }}
{{- else if and (regexMatch "(^|_)(SECRET|TOKEN|PASSWORD|KEY|SAS|HEADERS)(_|$)" $upper) (not (regexMatch "_(FILE|ID|PATH|URI|URL|NAME)$" $upper)) }}
{{- $use = "it is a secret; use a role (serviceAccount.annotations), or a file of secrets.files, such as AWS_SHARED_CREDENTIALS_FILE" }}
{{- end }}
{{- if $use }}{{ fail (printf "env.%s: %s" $name $use) }}{{ end }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}

{{/* The template of a pod. Takes "root" and the values "component", "arguments" and "restartPolicy". */}}
{{- define "harvester.pod" -}}
{{- $serves := eq .component "serve" }}
metadata:
  labels:
    {{- include "harvester.selector" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
  {{- if $serves }}
  {{- $settings := include "harvester.settings" .root | fromJson }}
  annotations:
    # A pod reloads these settings, so it restarts only if others change.
    harvester/restart: {{ omit $settings "workspaces" "workspace_defaults" "api_key_dir" "concurrency" "proxy" "proxy_file" | toJson | sha256sum }}
  {{- end }}
spec:
  restartPolicy: {{ .restartPolicy }}
  serviceAccountName: {{ include "harvester.name" .root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  # After a SIGTERM, harvester ends within 25 seconds.
  terminationGracePeriodSeconds: 30
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: {type: RuntimeDefault}
  {{- with .root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  {{- with .root.Values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .root.Values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if and (not $serves) (eq .root.Values.mode "service") (not .root.Values.secrets.ledger) }}
  # The volume can be mounted only on the node of the service.
  affinity:
    podAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        - topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "harvester.selector" .root | nindent 14 }}
              app.kubernetes.io/component: serve
  {{- end }}
  {{- if and $serves (eq .root.Values.mode "replicas") }}
  topologySpreadConstraints:
    {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - topologyKey: {{ . }}
      maxSkew: 1
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "harvester.selector" $.root | nindent 10 }}
          app.kubernetes.io/component: serve
    {{- end }}
  {{- end }}
  containers:
    - name: harvester
      image: "{{ required "image.repository is required: build the image with the Dockerfile of the repository" .root.Values.image.repository }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}"
      args: {{- toYaml .arguments | nindent 8 }}
      env:
        - {name: TMPDIR, value: /tmp}
        {{- with include "harvester.env" .root }}{{ . | trim | nindent 8 }}{{ end }}
      securityContext:
        readOnlyRootFilesystem: true
        allowPrivilegeEscalation: false
        capabilities: {drop: [ALL]}
      resources: {{- toYaml .root.Values.resources | nindent 8 }}
      {{- if $serves }}
      ports:
        - {name: web, containerPort: {{ include "harvester.webPort" .root }}}
      startupProbe: # a migration of a large ledger may take minutes
        httpGet: {path: /livez, port: web}
        periodSeconds: 5
        failureThreshold: 120
      livenessProbe:
        httpGet: {path: /livez, port: web}
        periodSeconds: 10
        timeoutSeconds: 10
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: web}
        periodSeconds: 10
        timeoutSeconds: 15
      {{- end }}
      volumeMounts:
        # Whole folders: a file that is mounted with subPath is never updated.
        - {name: config, mountPath: /etc/harvester, readOnly: true}
        - {name: api-keys, mountPath: /run/secrets/braze, readOnly: true}
        {{- if .root.Values.secrets.files }}
        - {name: files, mountPath: /run/secrets/files, readOnly: true}
        {{- end }}
        {{- if .root.Values.secrets.ledger }}
        - {name: ledger, mountPath: /run/secrets/ledger, readOnly: true}
        {{- end }}
        - {name: data, mountPath: /data}
        - {name: tmp, mountPath: /tmp}
  volumes:
    - name: config
      configMap: {name: {{ include "harvester.name" .root }}}
    - name: api-keys
      secret: {secretName: {{ required "secrets.apiKeys is required" .root.Values.secrets.apiKeys }}, defaultMode: 0440}
    {{- with .root.Values.secrets.files }}
    - name: files
      secret: {secretName: {{ . }}, defaultMode: 0440}
    {{- end }}
    {{- if .root.Values.secrets.ledger }}
    - name: ledger
      secret: {secretName: {{ .root.Values.secrets.ledger }}, defaultMode: 0440}
    - name: data
      emptyDir: {} # only for lines of lists that cannot be read
    {{- else }}
    - name: data
      persistentVolumeClaim: {claimName: {{ include "harvester.name" .root }}}
    {{- end }}
    - name: tmp
      emptyDir: {sizeLimit: {{ .root.Values.temporaryStorage }}}
{{- end }}

{{/* The template of a job that runs "harvester serve --until-idle". */}}
{{- define "harvester.job" -}}
backoffLimit: 0 # the next job continues
template:
  {{- include "harvester.pod" (dict "root" . "component" "serve" "restartPolicy" "Never" "arguments" (list "serve" "--config" "/etc/harvester/harvester.toml" "--until-idle")) | nindent 2 }}
{{- end }}
