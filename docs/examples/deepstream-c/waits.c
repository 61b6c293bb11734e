#include "app.h"

#include <math.h>

/* A fleet that was cut off together must not come back together: up to a quarter comes on top, and nothing is taken away. */
#define JITTER 0.25

double waits_before(const Config *config, guint code, guint tries, double chance) {
    double wait;
    switch (code) {
    case CLOSE_GOING_AWAY:
        wait = config->going_away_s;
        break;
    case CLOSE_REFUSED:
        wait = config->refused_s;
        break;
    default:
        wait = fmin(config->cap_s, ldexp(config->base_s, (int)MIN(tries, 30)));
    }
    return wait * (1 + JITTER * chance);
}
