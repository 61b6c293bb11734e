/* An app of a DeepStream fleet: one WebSocket to the server, a source of detections, and an orderly end. */
#pragma once

#include <glib.h>
#include <json-glib/json-glib.h>

/* --- config.c: the configuration file ------------------------------------------------------------------------- */

typedef struct {
    char *url;        /* ws://host:port/deepstream/ws */
    char *health_url; /* http://host:port/deepstream/health */
    char *token_file; /* NULL: no credential is shown */
    char *instance_id;
    double frames_per_s;
    double eos_s;
    double busy_s;
    guint queue_max;
    double going_away_s, refused_s, base_s, cap_s; /* already scaled */
    guint tries;
    guint health_timeout_s; /* not scaled: it is no wait between tries */
    double health_interval_s;
} Config;

/* Returns NULL and sets `error` when the file cannot be read or a value makes no sense. */
Config *config_load(const char *path, GError **error);
void config_free(Config *config);
/* The credential as it is now; NULL without one. The caller clears and frees it with config_forget. */
char *config_token(const Config *config, GError **error);
void config_forget(char *token);

/* --- waits.c: how long to wait before the next try ------------------------------------------------------------ */

#define CLOSE_NORMAL 1000
#define CLOSE_GOING_AWAY 1001
#define CLOSE_ABNORMAL 1006 /* never on the wire: the connection broke without a Close */
#define CLOSE_REFUSED 1013

/* Seconds before try `tries` (from 0) after a close with `code`. `chance` is from 0 to 1. */
double waits_before(const Config *config, guint code, guint tries, double chance);

/* --- notes.c: what the app did, a line of JSON each on stdout ------------------------------------------------- */

/* Takes `fields`, which may be NULL. Called by the loop's thread alone. */
void note(const char *event, JsonObject *fields);
/* The text of an object; takes `fields`. */
char *json_text(JsonObject *fields);

/* --- outbox.c: messages from any thread to the loop's --------------------------------------------------------- */

typedef struct Outbox Outbox;
typedef enum {
    OUTBOX_SHUT,     /* the server is not ready: senders wait */
    OUTBOX_OPEN,     /* senders go on */
    OUTBOX_DRAINING, /* the last messages before the end of the stream: senders go on */
    OUTBOX_CANCELLED /* senders are sent back */
} OutboxState;

/* `wake` is called in the loop's thread when there is something to take. */
Outbox *outbox_new(guint max, GSourceFunc wake, gpointer data);
void outbox_free(Outbox *outbox);
/* Any thread: hand over `text`, which is taken. Waits while the box is shut or full; FALSE: it was cancelled. */
gboolean outbox_send(Outbox *outbox, char *text);
/* Any thread: behind all that was sent, say that this was the last. */
gboolean outbox_end_of_stream(Outbox *outbox);
/* The loop's thread. */
void outbox_set(Outbox *outbox, OutboxState state);
/* The loop's thread: the next text, or NULL. `*last` is set when the end of the stream is reached. */
char *outbox_take(Outbox *outbox, gboolean *last);
void outbox_wake(Outbox *outbox);

/* --- source.c: where the pipeline goes ------------------------------------------------------------------------ */

typedef struct Source Source;

Source *source_new(const Config *config, Outbox *outbox);
void source_free(Source *source);
/* Begin, or begin again behind the last frame. */
void source_start(Source *source);
/* Take no new frames, drain what is on its way, then call outbox_end_of_stream. Returns at once. */
void source_stop(Source *source);
/* Stop without draining; the outbox must be cancelled before. Returns when the thread has ended. */
void source_cancel(Source *source);

/* --- link.c: the connection ----------------------------------------------------------------------------------- */

typedef struct Link Link;

Link *link_new(const Config *config, GMainLoop *loop);
void link_free(Link *link);
void link_start(Link *link);
/* Drain the source, close with 1000, and leave the loop. */
void link_leave(Link *link);
/* The exit status, after the loop. */
int link_status(const Link *link);
