#!/bin/sh
# deploy.sh OLD NEW: move all parties from one colour to the other, and back again when anything is wrong.
#   deploy.sh blue green        nodes of green run and are ready; node.release of each node is its colour
# Needs the AWS CLI, signald, what weigh.sh needs, and in the environment
#   ADMIN                http://NAME:8081, a name with the addresses of all nodes of both colours
#   SIGNALD_ADMIN_TOKEN  the admin token of the nodes
#   ALARMS               names of the alarms that end a deploy, with blanks between them
#   WATCH_S              how long each weight is watched (150: the alarms look at two minutes)
set -eu

here=$(dirname "$0")
old=${1:?usage: deploy.sh OLD NEW} new=${2:?usage: deploy.sh OLD NEW}

ctl() { signald ctl "$@" "--all-of=$ADMIN"; }

# weigh N: so many of 100 new connections go to the new colour.
weigh() {
    if [ "$new" = green ]; then "$here/weigh.sh" $((100 - $1)) "$1"; else "$here/weigh.sh" "$1" $((100 - $1)); fi
}

# In this order: a node that drains refuses newcomers.
back() {
    echo "deploy.sh: $1; back to $old" >&2
    ctl abort "--release=$old" || echo "deploy.sh: not all nodes of $old have called their drains off" >&2
    weigh 0
    echo "deploy.sh: now stop the nodes of $new. They hand back what they have got." >&2
    exit 1
}

quiet() {
    # shellcheck disable=SC2086 # one word for each alarm
    ringing=$(aws cloudwatch describe-alarms --alarm-names $ALARMS --state-value ALARM --query "length(MetricAlarms)" --output text)
    [ "$ringing" -eq 0 ]
}
watch() {
    sleep "${WATCH_S:-150}"
    quiet || back "an alarm rings"
}

for weight in 10 50; do
    weigh "$weight" || back "the weight of $new cannot be set to $weight"
    watch
done
# The gate: all clients come to nodes that their workers have reached before them.
ctl handover --workers --wait "--release=$old" "--to=$new" --timeout-s=120 || back "workers have not moved"
weigh 100 || back "the weight of $new cannot be set to 100"
watch
ctl drain --wait "--release=$old" --timeout-s=290 || back "parties have not moved"
ctl receipt "--release=$old" --fail-if='lost>0' || back "the receipts say that sessions were lost"
quiet || back "an alarm rings"
echo "All parties are at $new. Nodes of $old are drained and can still take all back: deploy.sh $new $old. Stop them when you are content."
