#!/bin/sh
# weigh.sh BLUE GREEN: how many of 100 new connections each colour gets, from now on. Open connections stay where they are.
#   weigh.sh 90 10    a canary        weigh.sh 0 100    the flip
# Needs the AWS CLI, and in the environment LISTENER, TARGETS_BLUE and TARGETS_GREEN: the ARNs that `terraform output` shows.
set -eu

for weight in "$@"; do
    case $weight in *[!0-9]* | "") set -- ;; esac
done
[ $# -eq 2 ] || { echo "usage: weigh.sh BLUE GREEN (each 0 to 100)" >&2; exit 64; }

# The balancer does not go to the other colour by itself: a weight is a share of the parties, whether a node is ready there or not.
ready() {
    found=$(aws elbv2 describe-target-health --target-group-arn "$1" --output text \
        --query "length(TargetHealthDescriptions[?TargetHealth.State=='healthy'])")
    [ "$found" -gt 0 ]
}
wait_ready() {
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
        ready "$2" && return
        sleep "${POLL_S:-1}"
    done
    echo "weigh.sh: $1 has no node that is ready, nothing was changed" >&2
    exit 1
}
[ "$1" -eq 0 ] || wait_ready blue "$TARGETS_BLUE"
[ "$2" -eq 0 ] || wait_ready green "$TARGETS_GREEN"

actions=$(printf '[{"Type":"forward","ForwardConfig":{"TargetGroups":[%s,%s],"TargetGroupStickinessConfig":{"Enabled":false}}}]' \
    "{\"TargetGroupArn\":\"$TARGETS_BLUE\",\"Weight\":$1}" "{\"TargetGroupArn\":\"$TARGETS_GREEN\",\"Weight\":$2}")
aws elbv2 modify-listener --listener-arn "$LISTENER" --default-actions "$actions" >/dev/null
