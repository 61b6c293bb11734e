#include "app.h"

#include <libsoup/soup.h>
#include <string.h>
#include <sysexits.h>

#define CONNECT_TIMEOUT_S 10
#define ANSWER_TIMEOUT_S 10 /* for reconnection_ack */
#define GOODBYE_TIMEOUT_S 15 /* the server closes after the last answer, at the latest when its own 10 s are over */
#define STEADY_S 5          /* a first app_ready has no answer: a connection that has stood for so long was taken */

struct Link {
    const Config *config;
    GMainLoop *loop;
    SoupSession *session, *health_session;
    SoupWebsocketConnection *socket;
    GCancellable *attempt; /* of the health request or the dial under way */
    GCancellable *check;   /* of the health request beside an open connection */
    Outbox *outbox;
    Source *source;
    guint timer;        /* the next try, or what the connection waits for */
    guint health_timer; /* asks while connected */
    guint tries;        /* failed ones in a row */
    guint last_code;    /* 0: there was no connection yet */
    gboolean known;     /* the server has taken this instance before */
    gboolean taken;     /* and it has done so on this connection */
    gboolean ready;     /* the connection may be written to */
    gboolean playing;   /* the source has been started */
    gboolean unheard;   /* a ping was not answered yet */
    gboolean leaving;   /* this process was asked to end */
    char *request_id;   /* of the terminate_app that is being obeyed */
    gboolean answered;  /* with app_terminated */
    int status;
};

static void try_later(Link *link, guint code);
static void check_health(Link *link);

/* --- the API differs a little between libsoup 2.4 and 3 ---------------------------------------------------------- */

#if SOUP_CHECK_VERSION(2, 99, 0)
#define headers_of(message) soup_message_get_request_headers(message)
#define status_of(message) soup_message_get_status(message)
#define send_request(link, message, cancel, done)                                                                      \
    soup_session_send_async((link)->health_session, message, G_PRIORITY_DEFAULT, cancel, done, link)
#define open_socket(link, message, done)                                                                               \
    soup_session_websocket_connect_async((link)->session, message, NULL, NULL, G_PRIORITY_DEFAULT, (link)->attempt, done, link)
#else
#define headers_of(message) ((message)->request_headers)
#define status_of(message) ((message)->status_code)
#define send_request(link, message, cancel, done)                                                                      \
    soup_session_send_async((link)->health_session, message, cancel, done, link)
#define open_socket(link, message, done)                                                                               \
    soup_session_websocket_connect_async((link)->session, message, NULL, NULL, (link)->attempt, done, link)
#endif

/* --- small things ------------------------------------------------------------------------------------------------ */

static JsonObject *of_type(const char *type) {
    JsonObject *fields = json_object_new();
    json_object_set_string_member(fields, "type", type);
    return fields;
}

static const char *text_of(JsonObject *fields, const char *name) {
    JsonNode *node = json_object_get_member(fields, name);
    return node != NULL && json_node_get_value_type(node) == G_TYPE_STRING ? json_node_get_string(node) : "";
}

static void note_text(const char *event, const char *name, const char *value) {
    JsonObject *fields = json_object_new();
    json_object_set_string_member(fields, name, value);
    note(event, fields);
}

static void note_state(const char *state) { note_text("state", "state", state); }

/* What libsoup is still closing takes no message, and no second Close. */
static gboolean is_open(const Link *link) {
    return link->socket != NULL && soup_websocket_connection_get_state(link->socket) == SOUP_WEBSOCKET_STATE_OPEN;
}

static void send_object(Link *link, JsonObject *fields) {
    g_autofree char *text = json_text(fields);
    if (is_open(link))
        soup_websocket_connection_send_text(link->socket, text);
}

static void close_with(Link *link, gushort code, const char *why) {
    if (is_open(link))
        soup_websocket_connection_close(link->socket, code, why);
}

static void set_timer(Link *link, double seconds, GSourceFunc due) {
    if (link->timer != 0)
        g_source_remove(link->timer);
    link->timer = due == NULL ? 0 : g_timeout_add((guint)(seconds * 1000), due, link);
}

static void finish(Link *link, int status) {
    set_timer(link, 0, NULL);
    link->status = status;
    g_main_loop_quit(link->loop);
}

static void set_ready(Link *link, gboolean ready) {
    if (ready == link->ready)
        return;
    link->ready = ready;
    /* The end of the stream goes out also while the server says that it will be gone. */
    if (link->request_id == NULL && !link->leaving)
        outbox_set(link->outbox, ready ? OUTBOX_OPEN : OUTBOX_SHUT);
    note(ready ? "sends open" : "sends blocked", NULL);
}

/* --- the end of the stream --------------------------------------------------------------------------------------- */

static gboolean goodbye_late(gpointer data) {
    Link *link = data;
    link->timer = 0;
    note("no close in time", NULL);
    finish(link, EX_OK);
    return G_SOURCE_REMOVE;
}

/* All that was queued is on its way. */
static void end_of_stream(Link *link) {
    note("end of stream", NULL);
    if (link->request_id != NULL && !link->answered) {
        JsonObject *fields = of_type("app_terminated");
        json_object_set_string_member(fields, "request_id", link->request_id);
        json_object_set_string_member(fields, "status", "OK");
        json_object_set_string_member(fields, "message", "the pipeline has ended");
        send_object(link, fields);
        link->answered = TRUE;
        note("terminated", NULL);
    } else if (link->leaving) {
        close_with(link, CLOSE_NORMAL, NULL);
    }
    set_timer(link, GOODBYE_TIMEOUT_S, goodbye_late);
}

static gboolean send_waiting(gpointer data) {
    Link *link = data;
    gboolean last = FALSE;
    gboolean draining = link->request_id != NULL || link->leaving;
    while (is_open(link) && (link->ready || draining)) {
        g_autofree char *text = outbox_take(link->outbox, &last);
        if (text == NULL)
            break;
        soup_websocket_connection_send_text(link->socket, text);
    }
    /* A mark that was left by a request of a connection that is gone means nothing. */
    if (last && draining && is_open(link))
        end_of_stream(link);
    return G_SOURCE_REMOVE;
}

static void drain(Link *link) {
    if (!link->playing) {
        end_of_stream(link);
        return;
    }
    outbox_set(link->outbox, OUTBOX_DRAINING);
    source_stop(link->source);
}

static void terminate(Link *link, JsonObject *said) {
    if (link->request_id != NULL)
        return; /* once is enough, however often it is said */
    link->request_id = g_strdup(text_of(said, "request_id"));
    set_timer(link, 0, NULL);
    note_text("terminate", "reason", text_of(said, "reason"));
    note_state("terminating");
    if (link->config->busy_s > 0) {
        JsonObject *busy = of_type("app_busy");
        json_object_set_string_member(busy, "request_id", link->request_id);
        json_object_set_int_member(busy, "until_ms", (gint64)(link->config->busy_s * 1000));
        json_object_set_string_member(busy, "reason", "the pipeline drains");
        send_object(link, busy);
    }
    drain(link);
}

/* The connection went before the source had ended: the request is void, and the source goes on with the next one. */
static void forget_terminate(Link *link) {
    g_clear_pointer(&link->request_id, g_free);
    link->answered = FALSE;
    outbox_set(link->outbox, OUTBOX_CANCELLED);
    source_cancel(link->source);
    link->playing = FALSE;
    outbox_set(link->outbox, OUTBOX_SHUT);
}

/* --- the connection ---------------------------------------------------------------------------------------------- */

static void usable(Link *link) {
    link->known = link->taken = TRUE;
    if (!link->playing)
        source_start(link->source);
    link->playing = TRUE;
    set_ready(link, TRUE);
}

static gboolean steady(gpointer data) {
    Link *link = data;
    link->timer = 0;
    link->tries = 0;
    return G_SOURCE_REMOVE;
}

static gboolean answer_late(gpointer data) {
    Link *link = data;
    link->timer = 0;
    close_with(link, CLOSE_GOING_AWAY, "no answer");
    return G_SOURCE_REMOVE;
}

static void obey(Link *link, JsonObject *said) {
    const char *type = text_of(said, "type");
    if (g_str_equal(type, "terminate_app")) {
        terminate(link, said);
    } else if (g_str_equal(type, "reconnection_ack")) {
        JsonObject *fields = json_object_new();
        json_object_set_boolean_member(fields, "restored",
                                       json_object_get_boolean_member_with_default(said, "session_restored", FALSE));
        note("reconnected", fields);
        set_timer(link, 0, NULL);
        link->tries = 0;
        usable(link);
    } else {
        note_text("message", "type", type); /* what a client, or signald of a later day, says */
    }
}

static void on_message(SoupWebsocketConnection *socket, gint kind, GBytes *bytes, gpointer data) {
    (void)socket;
    gsize size = 0;
    const char *text = g_bytes_get_data(bytes, &size);
    g_autoptr(JsonParser) parser = json_parser_new();
    if (kind != SOUP_WEBSOCKET_DATA_TEXT || !json_parser_load_from_data(parser, text, (gssize)size, NULL))
        return;
    JsonNode *root = json_parser_get_root(parser);
    if (root != NULL && JSON_NODE_HOLDS_OBJECT(root))
        obey(data, json_node_get_object(root));
}

static void on_pong(SoupWebsocketConnection *socket, GBytes *bytes, gpointer data) {
    (void)socket;
    (void)bytes;
    ((Link *)data)->unheard = FALSE;
}

/* The exit status after a close that no new connection can mend; -1: try again. */
static int status_after(guint code) {
    switch (code) {
    case 1002: case 1003: case 1007: case 1008: case 1009: case 4400:
        return EX_PROTOCOL;
    case 4401: case 4403:
        return EX_NOPERM;
    case 4409: case 4410: /* another process has this instance_id now, or an operator has ended it */
        return EX_UNAVAILABLE;
    default:
        return -1;
    }
}

static void on_closed(SoupWebsocketConnection *socket, gpointer data) {
    Link *link = data;
    guint code = soup_websocket_connection_get_close_code(socket);
    if (code == 0 || code == SOUP_WEBSOCKET_CLOSE_NO_STATUS)
        code = CLOSE_ABNORMAL;
    g_signal_handlers_disconnect_by_data(socket, link);
    g_clear_object(&link->socket);
    g_clear_handle_id(&link->health_timer, g_source_remove);
    g_cancellable_cancel(link->check);
    set_timer(link, 0, NULL);
    set_ready(link, FALSE);
    JsonObject *fields = json_object_new();
    json_object_set_int_member(fields, "code", code);
    note("closed", fields);
    note_state("disconnected");
    link->last_code = code;
    link->taken = FALSE;
    if (link->leaving || link->answered || code == CLOSE_NORMAL)
        finish(link, EX_OK);
    else if (status_after(code) >= 0)
        finish(link, status_after(code));
    else {
        if (link->request_id != NULL)
            forget_terminate(link);
        try_later(link, code);
    }
}

/* While connected: whether the server will go soon, and whether it is there at all. */
static gboolean beat(gpointer data) {
    Link *link = data;
    if (!is_open(link))
        return G_SOURCE_CONTINUE; /* it is being closed */
    if (link->unheard) {
        note("silent", NULL);
        /* A Close will have no answer either; libsoup waits for one no longer than a few seconds. */
        close_with(link, CLOSE_GOING_AWAY, "silent");
        return G_SOURCE_CONTINUE;
    }
    link->unheard = TRUE; /* until the pong of the keepalive of this interval */
    check_health(link);
    return G_SOURCE_CONTINUE;
}

static void open_up(Link *link) {
    JsonObject *fields = of_type("app_ready");
    json_object_set_string_member(fields, "instance_id", link->config->instance_id);
    json_object_set_boolean_member(fields, "reconnection", link->known);
    if (link->last_code != 0)
        json_object_set_int_member(fields, "last_close_code", link->last_code);
    JsonObject *config = json_object_new();
    json_object_set_double_member(config, "frames_per_s", link->config->frames_per_s);
    json_object_set_object_member(fields, "config", config);
    send_object(link, fields);
    if (link->known) {
        set_timer(link, ANSWER_TIMEOUT_S, answer_late);
        return;
    }
    set_timer(link, STEADY_S, steady);
    usable(link);
}

static void on_open(GObject *session, GAsyncResult *result, gpointer data) {
    Link *link = data;
    g_autoptr(GError) error = NULL;
    link->socket = soup_session_websocket_connect_finish(SOUP_SESSION(session), result, &error);
    g_clear_object(&link->attempt);
    if (link->leaving) { /* the signal came first */
        finish(link, EX_OK);
        return;
    }
    set_timer(link, 0, NULL);
    if (link->socket == NULL) {
        note_text("not connected", "why", error->message);
        link->tries++;
        try_later(link, CLOSE_ABNORMAL);
        return;
    }
    note_state("connected");
    /* Two pings between two beats, so that a pong has its time. */
    guint ping_s = (guint)MAX(1, link->config->health_interval_s / 2);
    soup_websocket_connection_set_keepalive_interval(link->socket, ping_s);
    link->unheard = FALSE;
    g_signal_connect(link->socket, "message", G_CALLBACK(on_message), link);
    g_signal_connect(link->socket, "pong", G_CALLBACK(on_pong), link);
    g_signal_connect(link->socket, "closed", G_CALLBACK(on_closed), link);
    link->health_timer = g_timeout_add(2000 * ping_s, beat, link);
    open_up(link);
}

static gboolean open_late(gpointer data) {
    Link *link = data;
    link->timer = 0;
    g_cancellable_cancel(link->attempt);
    return G_SOURCE_REMOVE;
}

static void dial(Link *link) {
    g_autoptr(GError) error = NULL;
    SoupMessage *message = soup_message_new("GET", link->config->url);
    char *token = config_token(link->config, &error);
    if (message == NULL || error != NULL) {
        note_text("cannot dial", "why", error != NULL ? error->message : "the URL is none");
        finish(link, EX_CONFIG);
    } else {
        if (token != NULL) {
            /* In a header, because a URL is written to the logs of every proxy. */
            char *value = g_strconcat("Bearer ", token, NULL);
            soup_message_headers_replace(headers_of(message), "Authorization", value);
            config_forget(value);
        }
        link->attempt = g_cancellable_new();
        set_timer(link, CONNECT_TIMEOUT_S, open_late);
        open_socket(link, message, on_open);
    }
    config_forget(token);
    g_clear_object(&message);
}

/* --- health, and the next try ------------------------------------------------------------------------------------ */

/* The status of an answer; 0 without one. */
static guint health_of(GObject *session, GAsyncResult *result, GCancellable *cancel) {
    g_autoptr(GInputStream) body = soup_session_send_finish(SOUP_SESSION(session), result, NULL);
    SoupMessage *message = g_object_get_data(G_OBJECT(cancel), "message");
    guint status = body != NULL ? status_of(message) : 0;
    JsonObject *fields = json_object_new();
    json_object_set_int_member(fields, "status", status);
    note("health", fields);
    return status;
}

/* Send the request; FALSE: the URL is none. */
static gboolean ask_health(Link *link, GCancellable **cancel, GAsyncReadyCallback done) {
    SoupMessage *message = soup_message_new("GET", link->config->health_url);
    if (message == NULL)
        return FALSE;
    *cancel = g_cancellable_new();
    g_object_set_data_full(G_OBJECT(*cancel), "message", message, g_object_unref);
    send_request(link, message, *cancel, done);
    return TRUE;
}

static void on_check(GObject *session, GAsyncResult *result, gpointer data) {
    Link *link = data;
    gboolean late = g_cancellable_is_cancelled(link->check);
    guint status = health_of(session, result, link->check);
    g_clear_object(&link->check);
    /* No answer is no news here: the connection itself tells whether the server is there. */
    if (!late && link->taken)
        set_ready(link, status != 503);
}

static void check_health(Link *link) {
    if (link->check == NULL)
        ask_health(link, &link->check, on_check);
}

static void on_health(GObject *session, GAsyncResult *result, gpointer data) {
    Link *link = data;
    guint status = health_of(session, result, link->attempt);
    g_clear_object(&link->attempt);
    if (link->leaving)
        finish(link, EX_OK);
    else if (status == 200)
        dial(link);
    else {
        link->tries++;
        try_later(link, CLOSE_ABNORMAL);
    }
}

static void begin_try(Link *link) {
    if (ask_health(link, &link->attempt, on_health))
        return;
    note_text("cannot dial", "why", "health_url is no URL");
    finish(link, EX_CONFIG);
}

static gboolean next_try(gpointer data) {
    Link *link = data;
    link->timer = 0;
    begin_try(link);
    return G_SOURCE_REMOVE;
}

static void try_later(Link *link, guint code) {
    if (link->tries >= link->config->tries) {
        note("gave up", NULL);
        finish(link, EX_UNAVAILABLE);
        return;
    }
    /* The first wait is the same behind a connection and without one. */
    guint tries = link->last_code != 0 ? link->tries : link->tries - 1;
    double seconds = waits_before(link->config, code, tries, g_random_double());
    JsonObject *fields = json_object_new();
    json_object_set_int_member(fields, "code", code);
    json_object_set_int_member(fields, "tries", link->tries);
    json_object_set_double_member(fields, "seconds", seconds);
    note("waiting", fields);
    set_timer(link, seconds, next_try);
}

/* --- the life of it ---------------------------------------------------------------------------------------------- */

Link *link_new(const Config *config, GMainLoop *loop) {
    Link *link = g_new0(Link, 1);
    link->config = config;
    link->loop = loop;
    link->outbox = outbox_new(config->queue_max, send_waiting, link);
    link->source = source_new(config, link->outbox);
    link->session = soup_session_new();
    /* Of its own, because the timeout counts for every read: a WebSocket may be silent for longer. */
    link->health_session = soup_session_new_with_options("timeout", config->health_timeout_s, NULL);
    return link;
}

void link_start(Link *link) { begin_try(link); }

void link_leave(Link *link) {
    if (link->leaving || (link->socket == NULL && link->attempt == NULL)) {
        finish(link, EX_OK); /* there is nothing to end in order, or it was asked twice */
        return;
    }
    link->leaving = TRUE;
    if (link->socket == NULL)
        g_cancellable_cancel(link->attempt);
    else if (link->request_id == NULL)
        drain(link);
}

int link_status(const Link *link) { return link->status; }

void link_free(Link *link) {
    outbox_set(link->outbox, OUTBOX_CANCELLED);
    source_cancel(link->source);
    g_clear_handle_id(&link->health_timer, g_source_remove);
    if (link->socket != NULL)
        g_signal_handlers_disconnect_by_data(link->socket, link);
    g_clear_object(&link->socket);
    g_clear_object(&link->attempt);
    g_object_unref(link->session);
    g_object_unref(link->health_session);
    source_free(link->source);
    outbox_free(link->outbox);
    g_free(link->request_id);
    g_free(link);
}
