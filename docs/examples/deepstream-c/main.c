#include "app.h"

#include <glib-unix.h>
#include <stdio.h>
#include <sysexits.h>

static gboolean on_signal(gpointer link) {
    note("signal", NULL);
    link_leave(link);
    return G_SOURCE_CONTINUE;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s CONFIG\n", argv[0]);
        return EX_USAGE;
    }
    g_autoptr(GError) error = NULL;
    Config *config = config_load(argv[1], &error);
    if (config == NULL) {
        fprintf(stderr, "%s: %s: %s\n", argv[0], argv[1], error->message);
        return EX_CONFIG;
    }
    g_autoptr(GMainLoop) loop = g_main_loop_new(NULL, FALSE);
    Link *link = link_new(config, loop);
    g_unix_signal_add(SIGTERM, on_signal, link);
    g_unix_signal_add(SIGINT, on_signal, link);
    link_start(link);
    g_main_loop_run(loop);
    int status = link_status(link);
    link_free(link);
    config_free(config);
    return status;
}
