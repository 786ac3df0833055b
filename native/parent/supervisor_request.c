/* Parse the request to watch a container. See supervisor_request.h. */
#include "parent/supervisor_request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Return the next string of a request's text; NULL at its end. */
static char *next_text(char **text, const char *end) {
    char *found = *text, *terminator = found < end ? memchr(found, '\0', (size_t)(end - found)) : NULL;
    *text = terminator ? terminator + 1 : found;
    return terminator ? found : NULL;
}

static char **arguments(char **text, const char *end, uint32_t count) {
    if (count > 64 || !count) {
        return NULL;
    }
    char **vector = calloc(count + 1, sizeof *vector);
    for (uint32_t i = 0; vector && i < count; i++) {
        vector[i] = next_text(text, end);
    }
    return vector;
}

int mb_supervise_texts(struct mb_received *message, struct mb_supervise_texts *texts) {
    struct mb_supervise_request *request = (void *)message->data;
    size_t length = (size_t)message->length;
    if (length < sizeof *request || message->fd_count != (size_t)__builtin_popcount(request->descriptors)) {
        return -EPROTO;
    }
    if (length - sizeof *request < request->end_size) {
        return -EPROTO;
    }
    uint32_t bad_op;
    if (mb_end_load(request->text, request->end_size, &texts->end, &bad_op)) {
        texts->end.op_count = 0;
    }
    char *text = request->text + request->end_size;
    const char *end = (char *)request + length;
    texts->log_path = next_text(&text, end);
    texts->exit_path = next_text(&text, end);
    texts->after = arguments(&text, end, request->after_argc);
    texts->health = arguments(&text, end, request->health_argc);
    int whole = texts->exit_path && texts->after && texts->after[request->after_argc - 1] &&
                (!texts->health || texts->health[request->health_argc - 1]);
    return whole ? 0 : -EPROTO;
}
