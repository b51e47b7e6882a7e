{{/* What the schema cannot say: which values do not go together. Each refusal is one line: thing, cause, remedy. */}}

{{- define "podlog.checks" -}}
{{- include "podlog.checkStores" . -}}
{{- include "podlog.checkSink" . -}}
{{- include "podlog.checkTimes" . -}}
{{- include "podlog.checkParts" . -}}
{{- end -}}

{{- define "podlog.checkStores" -}}
{{- $v := .Values -}}
{{- $own := or $v.lock.url $v.lock.password $v.sink.url $v.sink.password -}}
{{- if and $v.existingSecret $own -}}
{{- fail "podlog: both existingSecret and lock or sink are set: URLs and passwords come from one place; empty one of the two" -}}
{{- end -}}
{{- if and $v.mysql.enabled (or $own $v.existingSecret) -}}
{{- fail "podlog: both mysql.enabled and a lock, sink or existingSecret of your own are set; set mysql.enabled=false to use your own" -}}
{{- end -}}
{{- if not (or $v.lock.url $v.existingSecret $v.mysql.enabled) -}}
{{- fail "podlog: lock.url is empty: replicas need a MySQL or MariaDB for their claims; set lock.url=mysql://user@host:3306/database, or existingSecret, or, to try it out, mysql.enabled=true" -}}
{{- end -}}
{{- if $v.lock.url -}}
{{- if regexMatch "^(sqlite|memory):" $v.lock.url -}}
{{- fail "podlog: lock.url is a file or memory of one process: replicas would not see each other's claims and store lines several times; use mysql://user@host:3306/database" -}}
{{- end -}}
{{- if not (regexMatch "^(mysql|mariadb)://[^/\\s]+/[^/?\\s]+(\\?\\S*)?$" $v.lock.url) -}}
{{- fail "podlog: lock.url is not of the form mysql://user@host:3306/database; correct it (special characters are written as %XX)" -}}
{{- end -}}
{{- end -}}
{{- range $name := list "lock" "sink" -}}
{{- $store := index $v $name -}}
{{- if and $store.password (regexMatch "^[a-z+]+://[^/@:]*:[^/@]*@" $store.url) -}}
{{- fail (printf "podlog: %s.password is set and %s.url has a password too; leave one of them out" $name $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "podlog.checkSink" -}}
{{- $v := .Values -}}
{{- $sink := $v.sink.url | default "stdout" -}}
{{- if hasPrefix "sqlite:" $sink -}}
{{- fail "podlog: sink.url is an SQLite file: each replica would have its own; use mysql://user@host/database, file:///DIR or stdout" -}}
{{- end -}}
{{- if not (regexMatch "^(stdout|stdout://|file://\\S+|(mysql|mariadb)://[^/\\s]+/[^/?\\s]+(\\?\\S*)?)$" $sink) -}}
{{- fail "podlog: sink.url is none of mysql://user@host:3306/database, file:///DIR and stdout; correct it (special characters are written as %XX)" -}}
{{- end -}}
{{- if and (index $v.settings "include-self") (hasPrefix "stdout" $sink) (not $v.existingSecret) -}}
{{- fail "podlog: settings.include-self with sink.url=stdout: what podlog prints would be collected and printed again without end; use another sink" -}}
{{- end -}}
{{- if hasPrefix "file:" $sink -}}
{{- $folder := regexReplaceAll "^file://([^?]*).*$" $sink "${1}" -}}
{{- $mounted := false -}}
{{- range $v.extraVolumeMounts -}}
{{- if or (eq $folder .mountPath) (hasPrefix (printf "%s/" (trimSuffix "/" .mountPath)) $folder) -}}{{- $mounted = true -}}{{- end -}}
{{- end -}}
{{- if not $mounted -}}
{{- fail (printf "podlog: sink.url writes to %s, and the root file system is read-only; mount a volume there with extraVolumes and extraVolumeMounts" $folder) -}}
{{- end -}}
{{- end -}}
{{- if and $v.settings.retain (not $v.existingSecret) (not $v.mysql.enabled) (regexMatch "^(stdout|file:)" $sink) -}}
{{- fail "podlog: settings.retain is set, but records at stdout or in files cannot be deleted; leave it empty or use a database as sink" -}}
{{- end -}}
{{- end -}}

{{/* The rules of `podlog run` for times that depend on each other; it checks the others when it starts. The 3 s are its deadline for statements. */}}
{{- define "podlog.checkTimes" -}}
{{- $s := .Values.settings -}}
{{- $ttl := include "podlog.ms" $s.ttl | int64 -}}
{{- $renew := include "podlog.ms" $s.renew | int64 -}}
{{- $margin := include "podlog.ms" $s.margin | int64 -}}
{{- $write := include "podlog.ms" (index $s "write-timeout") | int64 -}}
{{- $grace := include "podlog.ms" $s.grace | int64 -}}
{{- if lt $renew 100 -}}
{{- fail (printf "podlog: settings.renew %s: claims would be renewed all the time; use at least 100ms" $s.renew) -}}
{{- end -}}
{{- if lt $margin (add 1000 (div $ttl 1000)) -}}
{{- fail (printf "podlog: settings.margin %s is too short for settings.ttl %s: clocks may differ by ttl/1000 and the database's may jump by 1s; use at least %dms" $s.margin $s.ttl (add 1000 (div $ttl 1000))) -}}
{{- end -}}
{{- $between := max $renew 3000 -}}
{{- $longer := ternary "statement deadline 3s, which is longer than renew" (printf "renew %s" $s.renew) (lt $renew 3000) -}}
{{- $least := add $margin $between 6000 -}}
{{- if lt $ttl $least -}}
{{- fail (printf "podlog: settings.ttl %s is too short: margin %s + %s + 2 x statement deadline 3s = %dms, so one failed renewal would lose every claim; raise settings.ttl or lower settings.renew" $s.ttl $s.margin $longer $least) -}}
{{- end -}}
{{- if gt (include "podlog.ms" (index $s "takeover-grace") | int64) $ttl -}}
{{- fail (printf "podlog: settings.takeover-grace %s is longer than settings.ttl %s: pods of a crashed replica would wait that long for nothing; use 1s" (index $s "takeover-grace") $s.ttl) -}}
{{- end -}}
{{- $most := sub $ttl (add $margin $between 3000) -}}
{{- if or (eq $write 0) (gt $write $most) -}}
{{- fail (printf "podlog: settings.write-timeout %s does not fit: ttl %s - margin %s - %s - statement deadline 3s leaves %dms for a write; lower it or raise settings.ttl" (index $s "write-timeout") $s.ttl $s.margin $longer $most) -}}
{{- end -}}
{{- if lt $grace (add $write 3000) -}}
{{- fail (printf "podlog: settings.grace %s is too short: the last write may take %s and giving claims back 3s; use at least %dms" $s.grace (index $s "write-timeout") (add $write 3000)) -}}
{{- end -}}
{{- if le (mul 1000 (include "podlog.patience" . | int64)) $grace -}}
{{- fail (printf "podlog: terminationGracePeriodSeconds %s is not above settings.grace %s: replicas would be killed while they hand over; raise it or leave it empty" (include "podlog.patience" .) $s.grace) -}}
{{- end -}}
{{- if and $s.retain (lt (include "podlog.ms" $s.retain | int64) 3600000) -}}
{{- fail (printf "podlog: settings.retain %s would delete what was just written; use at least 1h" $s.retain) -}}
{{- end -}}
{{- end -}}

{{- define "podlog.checkParts" -}}
{{- $v := .Values -}}
{{- if not $v.image.repository -}}
{{- fail "podlog: image.repository is empty: build the image, push it, and set image.repository=REGISTRY/podlog" -}}
{{- end -}}
{{- if and $v.rbac.create (not $v.serviceAccount.create) (not $v.serviceAccount.name) -}}
{{- fail "podlog: rbac.create would let every pod of the account `default` read logs; set serviceAccount.name, or serviceAccount.create=true" -}}
{{- end -}}
{{- if regexMatch "[A-Z]" (regexReplaceAll "^[^/]*[.:][^/]*/" $v.image.repository "") -}}
{{- fail (printf "podlog: image.repository %s has capital letters, which names of images have not; put the registry and name there to which you pushed the image" $v.image.repository) -}}
{{- end -}}
{{- if $v.hpa.enabled -}}
{{- if lt (int64 $v.hpa.maxReplicas) (int64 $v.hpa.minReplicas) -}}
{{- fail (printf "podlog: hpa.maxReplicas %d is below hpa.minReplicas %d; raise it" (int64 $v.hpa.maxReplicas) (int64 $v.hpa.minReplicas)) -}}
{{- end -}}
{{- if not (or $v.hpa.cpu $v.hpa.memory $v.hpa.metrics) -}}
{{- fail "podlog: hpa.enabled without anything to go by; set hpa.cpu, hpa.memory or hpa.metrics" -}}
{{- end -}}
{{- if and $v.vpa.enabled (ne $v.vpa.updateMode "Off") (or $v.hpa.cpu $v.hpa.memory) -}}
{{- fail "podlog: hpa and vpa would both act on CPU or memory; set vpa.updateMode=Off or use hpa.metrics" -}}
{{- end -}}
{{- end -}}
{{- if and $v.serviceMonitor.enabled $v.podMonitor.enabled -}}
{{- fail "podlog: serviceMonitor and podMonitor would scrape every replica twice; enable one" -}}
{{- end -}}
{{- if and $v.serviceMonitor.enabled (not $v.service.enabled) -}}
{{- fail "podlog: serviceMonitor needs the Service; set service.enabled=true or use podMonitor" -}}
{{- end -}}
{{- if and $v.mysql.enabled (eq $v.migrate.mode "job") -}}
{{- fail "podlog: migrate.mode=job runs before mysql.enabled has made the database; use migrate.mode=replicas" -}}
{{- end -}}
{{- range $key := list "name" "instance" "component" -}}
{{- $label := printf "app.kubernetes.io/%s" $key -}}
{{- if or (hasKey $v.podLabels $label) (hasKey $v.commonLabels $label) -}}
{{- fail (printf "podlog: the label %s belongs to the chart: replicas are found by it, and leave their own logs out; remove it from podLabels or commonLabels" $label) -}}
{{- end -}}
{{- end -}}
{{- end -}}
