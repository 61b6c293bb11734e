#include "app.h"

#include <string.h>

#define PATH_SOCKET "/deepstream/ws"
#define PATH_HEALTH "/deepstream/health"

static double number(GKeyFile *file, const char *group, const char *key, double usual, double least, GError **error) {
    if (*error != NULL || !g_key_file_has_key(file, group, key, NULL))
        return usual;
    double value = g_key_file_get_double(file, group, key, error);
    if (*error == NULL && !(value >= least && value <= 1e6))
        g_set_error(error, G_KEY_FILE_ERROR, G_KEY_FILE_ERROR_INVALID_VALUE, "%s.%s is not from %g to 1000000", group, key,
                    least);
    return value;
}

/* The URL of the server is one without a path; the guide says which paths there are. */
static gboolean find_urls(Config *config, GKeyFile *file, GError **error) {
    g_autofree char *url = g_key_file_get_string(file, "server", "url", error);
    if (url == NULL)
        return FALSE;
    while (g_str_has_suffix(url, "/"))
        url[strlen(url) - 1] = '\0';
    if (!g_str_has_prefix(url, "ws://") && !g_str_has_prefix(url, "wss://")) {
        g_set_error(error, G_KEY_FILE_ERROR, G_KEY_FILE_ERROR_INVALID_VALUE, "server.url is no ws:// or wss:// URL");
        return FALSE;
    }
    config->url = g_strconcat(url, PATH_SOCKET, NULL);
    config->health_url = g_key_file_get_string(file, "server", "health_url", NULL);
    if (config->health_url == NULL) /* "ws…" becomes "http…", "wss…" becomes "https…" */
        config->health_url = g_strconcat("http", url + 2, PATH_HEALTH, NULL);
    return TRUE;
}

static void read_numbers(Config *config, GKeyFile *file, GError **error) {
    config->frames_per_s = number(file, "app", "frames_per_s", 5, 0.001, error);
    config->eos_s = number(file, "app", "eos_s", 0, 0, error);
    config->busy_s = number(file, "app", "busy_s", 0, 0, error);
    config->queue_max = (guint)number(file, "app", "queue_max", 1000, 1, error);
    double scale = number(file, "waits", "time_scale", 1, 0.001, error);
    config->going_away_s = scale * number(file, "waits", "going_away_s", 5, 0, error);
    config->refused_s = scale * number(file, "waits", "refused_s", 10, 0, error);
    config->base_s = scale * number(file, "waits", "base_s", 1, 0.001, error);
    config->cap_s = scale * number(file, "waits", "cap_s", 60, 0.001, error);
    config->tries = (guint)number(file, "waits", "tries", 10, 1, error);
    config->health_timeout_s = (guint)number(file, "waits", "health_timeout_s", 5, 1, error);
    config->health_interval_s = scale * number(file, "waits", "health_interval_s", 30, 0.001, error);
}

Config *config_load(const char *path, GError **error) {
    GError *problem = NULL;
    g_autoptr(GKeyFile) file = g_key_file_new();
    Config *config = g_new0(Config, 1);
    if (g_key_file_load_from_file(file, path, G_KEY_FILE_NONE, &problem) && find_urls(config, file, &problem)) {
        config->token_file = g_key_file_get_string(file, "server", "token_file", NULL);
        config->instance_id = g_key_file_get_string(file, "app", "instance_id", &problem);
        if (problem == NULL)
            read_numbers(config, file, &problem);
    }
    if (problem == NULL)
        return config;
    g_propagate_error(error, problem);
    config_free(config);
    return NULL;
}

void config_free(Config *config) {
    g_free(config->url);
    g_free(config->health_url);
    g_free(config->token_file);
    g_free(config->instance_id);
    g_free(config);
}

char *config_token(const Config *config, GError **error) {
    char *token = NULL;
    if (config->token_file != NULL && g_file_get_contents(config->token_file, &token, NULL, error))
        g_strstrip(token);
    return token;
}

void config_forget(char *token) {
    if (token == NULL)
        return;
    /* Through a volatile pointer, or the compiler leaves out what is never read again. */
    for (volatile char *at = token; *at != '\0'; at++)
        *at = '\0';
    g_free(token);
}
