#include "app.h"

#include <stdio.h>

char *json_text(JsonObject *fields) {
    g_autoptr(JsonNode) node = json_node_init_object(json_node_alloc(), fields);
    json_object_unref(fields);
    return json_to_string(node, FALSE);
}

void note(const char *event, JsonObject *fields) {
    if (fields == NULL)
        fields = json_object_new();
    json_object_set_string_member(fields, "saw", event);
    json_object_set_double_member(fields, "at", (double)g_get_real_time() / G_USEC_PER_SEC);
    g_autofree char *text = json_text(fields);
    puts(text);
    fflush(stdout);
}
