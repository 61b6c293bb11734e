#include "app.h"

/* A thread that plays frames. With GStreamer this file is the pipeline:
 *
 *   source_start   gst_parse_launch("… ! nvinfer … ! fakesink"), gst_element_set_state(pipeline, GST_STATE_PLAYING);
 *                  a probe on the pad behind nvinfer builds the text and calls outbox_send. A pad's thread that must not
 *                  wait asks first and drops the frame, or has a queue with leaky=downstream before it.
 *   source_stop    gst_element_send_event(pipeline, gst_event_new_eos()); on GST_MESSAGE_EOS of the bus,
 *                  gst_element_set_state(pipeline, GST_STATE_NULL), then outbox_end_of_stream.
 */
struct Source {
    const Config *config;
    Outbox *outbox;
    GThread *thread;
    GMutex mutex;
    GCond changed;
    gboolean stopping, cancelled;
    gint64 frame;
};

Source *source_new(const Config *config, Outbox *outbox) {
    Source *source = g_new0(Source, 1);
    source->config = config;
    source->outbox = outbox;
    g_mutex_init(&source->mutex);
    g_cond_init(&source->changed);
    return source;
}

void source_free(Source *source) {
    g_mutex_clear(&source->mutex);
    g_cond_clear(&source->changed);
    g_free(source);
}

/* Sleep; TRUE when `*flag` was set meanwhile or before. */
static gboolean sleep_unless(Source *source, const gboolean *flag, double seconds) {
    gint64 until = g_get_monotonic_time() + (gint64)(seconds * G_USEC_PER_SEC);
    g_mutex_lock(&source->mutex);
    while (!*flag && g_cond_wait_until(&source->changed, &source->mutex, until)) {
    }
    gboolean set = *flag;
    g_mutex_unlock(&source->mutex);
    return set;
}

static char *detections(gint64 frame) {
    JsonObject *fields = json_object_new();
    JsonArray *objects = json_array_new();
    json_array_add_string_element(objects, frame % 2 ? "person" : "car");
    json_object_set_string_member(fields, "type", "detections");
    json_object_set_int_member(fields, "frame", frame);
    json_object_set_array_member(fields, "objects", objects);
    return json_text(fields);
}

/* The last word of a pipeline that has drained: how many frames it has told of. */
static char *last_of(gint64 frames) {
    JsonObject *fields = json_object_new();
    json_object_set_string_member(fields, "type", "end_of_stream");
    json_object_set_int_member(fields, "frames", frames);
    return json_text(fields);
}

static gpointer play(gpointer data) {
    Source *source = data;
    while (!sleep_unless(source, &source->stopping, 1 / source->config->frames_per_s)) {
        if (!outbox_send(source->outbox, detections(source->frame + 1)))
            return NULL;
        source->frame++; /* only this thread, and no other runs at the same time */
    }
    if (!sleep_unless(source, &source->cancelled, source->config->eos_s) &&
        outbox_send(source->outbox, last_of(source->frame)))
        outbox_end_of_stream(source->outbox);
    return NULL;
}

void source_start(Source *source) {
    source->stopping = source->cancelled = FALSE;
    source->thread = g_thread_new("source", play, source);
}

static void set(Source *source, gboolean *flag) {
    g_mutex_lock(&source->mutex);
    source->stopping = *flag = TRUE;
    g_cond_broadcast(&source->changed);
    g_mutex_unlock(&source->mutex);
}

void source_stop(Source *source) { set(source, &source->stopping); }

void source_cancel(Source *source) {
    set(source, &source->cancelled);
    if (source->thread != NULL)
        g_thread_join(source->thread);
    source->thread = NULL;
}
