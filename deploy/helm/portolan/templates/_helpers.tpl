{{- define "portolan.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* What the command line and every selector look for. */ -}}
{{- define "portolan.selectorLabels" -}}
app.kubernetes.io/name: portolan
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "portolan.labels" -}}
{{ include "portolan.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "portolan.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "portolan.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: needed with serviceAccount.create=false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "portolan.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* Every node and its peer port, the same list for each: node 0 holds the seat. */ -}}
{{- define "portolan.nodes" -}}
{{- $name := include "portolan.fullname" . -}}
{{- $nodes := list -}}
{{- range $ordinal := until (int .Values.replicas) -}}
{{- $nodes = append $nodes (printf "%s-%d=%s-%d.%s-nodes.%s.svc:7443" $name $ordinal $name $ordinal $name $.Release.Namespace) -}}
{{- end -}}
{{- join "," $nodes -}}
{{- end -}}

{{- define "portolan.topologyConfigMap" -}}
{{- default (printf "%s-topology" (include "portolan.fullname" .)) .Values.topology.existingConfigMap -}}
{{- end -}}

{{- define "portolan.tlsSecret" -}}
{{- default (printf "%s-tls" (include "portolan.fullname" .)) .Values.tls.existingSecret -}}
{{- end -}}

{{- /* The topology's name, which is the certificates' trust domain. */ -}}
{{- define "portolan.trustDomain" -}}
{{- $written := "" -}}
{{- if .Values.topology.content -}}
{{- $written = dig "metadata" "name" "" (fromYaml .Values.topology.content) -}}
{{- end -}}
{{- required "topology.trustDomain: set it to the topology's metadata.name, which cert-manager's certificate needs" (default $written .Values.topology.trustDomain) -}}
{{- end -}}

{{- /* What would install and then not start: refused here, in the words of the values. The program checks the rest. */ -}}
{{- define "portolan.check" -}}
{{- $topology := .Values.topology -}}
{{- if not .Values.cluster -}}
{{- fail "cluster: set it to this cluster's name in the topology, such as --set cluster=use1-a" -}}
{{- end -}}
{{- if and $topology.content $topology.existingConfigMap -}}
{{- fail "topology: set content or existingConfigMap, not both" -}}
{{- end -}}
{{- if not (or $topology.content $topology.existingConfigMap) -}}
{{- fail "topology: set it with --set-file topology.content=topology.yaml, or topology.existingConfigMap" -}}
{{- end -}}
{{- if $topology.content -}}
{{- $parsed := fromYaml $topology.content -}}
{{- if hasKey $parsed "Error" -}}
{{- fail (printf "topology.content: %s; `portolan topology check FILE` says where" $parsed.Error) -}}
{{- end -}}
{{- $names := list -}}
{{- range dig "spec" "regions" list $parsed -}}
{{- range dig "clusters" list . -}}
{{- $names = append $names (dig "name" "" .) -}}
{{- end -}}
{{- end -}}
{{- if not (has .Values.cluster $names) -}}
{{- fail (printf "cluster: the topology has no cluster `%s`; expected one of %s" .Values.cluster (join ", " $names)) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.tls.existingSecret .Values.tls.certManager.enabled -}}
{{- fail "tls: set existingSecret or certManager.enabled, not both" -}}
{{- end -}}
{{- if not (or .Values.tls.existingSecret .Values.tls.certManager.enabled) -}}
{{- fail "tls: set existingSecret, or certManager.enabled with its issuerRef.name" -}}
{{- end -}}
{{- if and .Values.tls.certManager.enabled (not .Values.tls.certManager.issuerRef.name) -}}
{{- fail "tls.certManager.issuerRef.name: set it to the issuer of this federation's certificates" -}}
{{- end -}}
{{- if and .Values.xds.plaintext.enabled (not .Values.xds.plaintext.from) -}}
{{- fail "xds.plaintext.from: say who may use the plain-text port, such as 10.0.0.0/8" -}}
{{- end -}}
{{- end -}}
