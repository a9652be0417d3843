#!/bin/bash
# Starts a real one-node Slurm as root on Debian (slurm-wlm, munge), without systemd, cgroups or a database.
#
#     slurm.sh start FOLDER    writes FOLDER/slurm.conf and starts munged, slurmctld and slurmd
#     slurm.sh stop FOLDER
#
# Then SLURM_CONF=FOLDER/slurm.conf sbatch ...
set -euo pipefail
what=$1 folder=$(realpath -m "$2") host=$(hostname -s)

stop() {
    for daemon in slurmd slurmctld munged; do
        [ -f "$folder/$daemon.pid" ] && kill "$(cat "$folder/$daemon.pid")" 2>/dev/null || true
    done
}

if [ "$what" = stop ]; then stop; exit; fi

mkdir -p "$folder"/{state,spool,log}
chmod 755 "$folder"
mkdir -p /run/optstudy-munge && chmod 755 /run/optstudy-munge
[ -f "$folder/munge.key" ] || (umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")
cat >"$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=/run/optstudy-munge/socket,cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
KillWait=5
ReturnToService=2
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld
SlurmdLogFile=$folder/log/slurmd
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=2000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=off
CONF
export SLURM_CONF="$folder/slurm.conf"
munged --force --key-file "$folder/munge.key" --socket /run/optstudy-munge/socket \
    --pid-file "$folder/munged.pid" --log-file "$folder/log/munged" --seed-file "$folder/munge.seed"
slurmctld -i
slurmd
for _ in $(seq 100); do
    [ "$(sinfo --noheader --format=%T 2>/dev/null | head -1)" = idle ] && exit 0
    sleep 0.1
done
tail -5 "$folder"/log/* >&2
stop
exit 1
