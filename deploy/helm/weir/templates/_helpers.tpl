{{- define "weir.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "weir.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "weir.labels" -}}
{{ include "weir.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{/* The most proxies that run at once: the budget is divided by it. With a store a rollout starts one more before it ends one. */}}
{{- define "weir.replicasMax" -}}
{{- $most := add (int .Values.replicas) (ternary 1 0 (ne (dig "fleet" "store" "" .Values.config) "")) -}}
{{- $written := int (dig "fleet" "replicas_max" $most .Values.config) -}}
{{- if lt $written (int $most) -}}
{{- fail (printf "config.fleet.replicas_max is %d, and %d proxies may run at once" $written (int $most)) -}}
{{- end -}}
{{- $written -}}
{{- end -}}

{{/* The configuration file: that of the values, with the addresses of the chart's ports. */}}
{{- define "weir.config" -}}
{{- $server := dict "listen" "0.0.0.0:9099" "admin_listen" "0.0.0.0:9098" -}}
{{- if .Values.adminToken.secret -}}
{{- $_ := set $server "admin_auth" (dict "token_file" "/run/secrets/weir/token") -}}
{{- end -}}
{{- $fleet := dict "replicas_max" (include "weir.replicasMax" . | int) -}}
{{- $config := mergeOverwrite (deepCopy .Values.config) (dict "server" $server "fleet" $fleet) -}}
{{- toYaml $config -}}
{{- end -}}

{{/* The scheme of the admin port, for probes and scrapes. */}}
{{- define "weir.adminScheme" -}}
{{- if dig "server" "admin_tls" "cert_file" "" .Values.config -}}https{{- else -}}http{{- end -}}
{{- end -}}
