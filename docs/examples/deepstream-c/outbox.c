#include "app.h"

static char END_OF_STREAM[] = ""; /* its address, not its text, marks the end */

struct Outbox {
    GAsyncQueue *queue;
    GMutex mutex;
    GCond changed;
    OutboxState state;
    guint max;
    GSourceFunc wake;
    gpointer data;
    gint woken; /* atomic: the loop has been asked to look */
};

static void forget(gpointer text) {
    if (text != END_OF_STREAM)
        g_free(text);
}

Outbox *outbox_new(guint max, GSourceFunc wake, gpointer data) {
    Outbox *outbox = g_new0(Outbox, 1);
    outbox->queue = g_async_queue_new_full(forget);
    g_mutex_init(&outbox->mutex);
    g_cond_init(&outbox->changed);
    outbox->max = max;
    outbox->wake = wake;
    outbox->data = data;
    return outbox;
}

void outbox_free(Outbox *outbox) {
    g_async_queue_unref(outbox->queue);
    g_mutex_clear(&outbox->mutex);
    g_cond_clear(&outbox->changed);
    g_free(outbox);
}

static gboolean look(gpointer data) {
    Outbox *outbox = data;
    g_atomic_int_set(&outbox->woken, FALSE); /* before the look: what is put in meanwhile asks again */
    outbox->wake(outbox->data);
    return G_SOURCE_REMOVE;
}

void outbox_wake(Outbox *outbox) {
    if (g_atomic_int_compare_and_exchange(&outbox->woken, FALSE, TRUE))
        g_idle_add(look, outbox); /* the one call of GLib's loop that other threads may make */
}

static gboolean may_send(const Outbox *outbox) {
    if (outbox->state != OUTBOX_OPEN && outbox->state != OUTBOX_DRAINING)
        return FALSE;
    return g_async_queue_length(outbox->queue) < (gint)outbox->max;
}

static gboolean put(Outbox *outbox, char *text) {
    g_mutex_lock(&outbox->mutex);
    while (outbox->state != OUTBOX_CANCELLED && !may_send(outbox))
        g_cond_wait(&outbox->changed, &outbox->mutex);
    gboolean taken = outbox->state != OUTBOX_CANCELLED;
    if (taken)
        g_async_queue_push(outbox->queue, text);
    g_mutex_unlock(&outbox->mutex);
    if (taken)
        outbox_wake(outbox);
    return taken;
}

gboolean outbox_send(Outbox *outbox, char *text) {
    gboolean taken = put(outbox, text);
    if (!taken)
        g_free(text);
    return taken;
}

gboolean outbox_end_of_stream(Outbox *outbox) { return put(outbox, END_OF_STREAM); }

void outbox_set(Outbox *outbox, OutboxState state) {
    g_mutex_lock(&outbox->mutex);
    outbox->state = state;
    g_cond_broadcast(&outbox->changed);
    g_mutex_unlock(&outbox->mutex);
    outbox_wake(outbox);
}

char *outbox_take(Outbox *outbox, gboolean *last) {
    g_mutex_lock(&outbox->mutex);
    char *text = g_async_queue_try_pop(outbox->queue);
    g_cond_broadcast(&outbox->changed);
    g_mutex_unlock(&outbox->mutex);
    *last = text == END_OF_STREAM;
    return *last ? NULL : text;
}
