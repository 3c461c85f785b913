/* The filter of gRPC calls: it finds the model's name, by which Envoy then chooses the route, and
   refuses what is no whole message. `lua/small_models.lua` does the same where this module is not. */
#include <stdlib.h>
#include <string.h>

#include "message_name.h"

#define PARTS_ON_STACK 64
#define INVALID_ARGUMENT "3"
#define UNIMPLEMENTED "12"

/* ModelMesh's metadata that name a model; the first present one counts. */
static const struct {
  const char *key;
  bool is_base64;
} NAME_KEYS[] = {{"mm-vmodel-id", false},
                 {"mm-vmodel-id-bin", true},
                 {"mm-model-id", false},
                 {"mm-model-id-bin", true}};

typedef struct {
  size_t message_bytes_max;
} limit_t;

const char *envoy_dynamic_module_on_program_init(void) { return ENVOY_ABI_VERSION; }

static span_t word(const char *text) { return (span_t){text, strlen(text)}; }

static bool get(void *envoy, int map, const char *name, span_t *value, size_t index, size_t *count) {
  return FILTER(get_header)(envoy, map, word(name), value, index, count) && value->ptr != NULL;
}

static void refuse(void *envoy, uint32_t status, const char *grpc_status, const char *reason) {
  header_t header = {"grpc-status", 11, grpc_status, grpc_status ? strlen(grpc_status) : 0};
  FILTER(send_response)(envoy, status, &header, grpc_status ? 1 : 0, word(reason), word("mesh_calls"));
}

/* Read a header's values, joined by commas as those of one that came several times are. */
static bool read_values(void *envoy, const char *key, name_t *values) {
  span_t value;
  size_t count = 1;
  values->count = 0;
  for (size_t i = 0; i < count && get(envoy, REQUEST_HEADERS, key, &value, i, &count); i++) {
    size_t room = NAME_BYTES_MAX - values->count;
    if (i && room) {
      values->bytes[values->count++] = ',';
      room--;
    }
    size_t some = value.length < room ? value.length : room;
    if (some) memcpy(values->bytes + values->count, value.ptr, some);
    values->count += some;
  }
  return values->count > 0;
}

static bool find_name_in_metadata(void *envoy, name_t *name) {
  name_t values;
  for (size_t i = 0; i < sizeof NAME_KEYS / sizeof *NAME_KEYS; i++) {
    if (!NAME_KEYS[i].is_base64) {
      if (read_values(envoy, NAME_KEYS[i].key, name)) return true;
    } else if (read_values(envoy, NAME_KEYS[i].key, &values)) {
      const char *comma = memchr(values.bytes, ',', values.count);
      size_t length = comma ? (size_t)(comma - values.bytes) : values.count;
      name->count = decode_base64((span_t){values.bytes, length}, name->bytes);
      return true;
    }
  }
  return false;
}

/* Return whether the message is whole and as long as its head says; otherwise answer the client. */
static bool check_message(void *envoy, const message_t *message) {
  uint8_t head[GRPC_HEAD_BYTES];
  if (copy_bytes(message, 0, (char *)head, sizeof head) < sizeof head) {
    refuse(envoy, 400, INVALID_ARGUMENT, "a unary gRPC call has one message, this one has none");
    return false;
  }
  size_t length = (size_t)head[1] << 24 | (size_t)head[2] << 16 | (size_t)head[3] << 8 | head[4];
  if (length != message->size - GRPC_HEAD_BYTES) {
    refuse(envoy, 400, INVALID_ARGUMENT, "the gRPC frame's length is not the message's");
    return false;
  }
  if (head[0] != 0) {
    refuse(envoy, 415, UNIMPLEMENTED,
           "the message is compressed in a way that is not served: use gzip, deflate or none");
    return false;
  }
  return true;
}

/* Return whether what has come is within the route's limit; otherwise answer the client. */
static bool is_small_enough(void *envoy, bool has_received) {
  const limit_t *limit = envoy_dynamic_module_callback_get_most_specific_route_config(envoy);
  size_t size = FILTER(get_body_size)(envoy, BUFFERED_REQUEST);
  if (has_received) size += FILTER(get_body_size)(envoy, RECEIVED_REQUEST);
  if (limit != NULL && size <= limit->message_bytes_max + GRPC_HEAD_BYTES) return true;
  refuse(envoy, 413, NULL, "");
  return false;
}

/* Return whether the call goes on, with its model's name as a header. */
static bool check_call(void *envoy, bool has_received) {
  if (!is_small_enough(envoy, has_received)) return false;
  int bodies[] = {BUFFERED_REQUEST, RECEIVED_REQUEST};
  size_t counts[2] = {FILTER(get_body_chunks_size)(envoy, BUFFERED_REQUEST),
                      has_received ? FILTER(get_body_chunks_size)(envoy, RECEIVED_REQUEST) : 0};
  size_t count = counts[0] + counts[1];
  span_t few[PARTS_ON_STACK], *parts = count <= PARTS_ON_STACK ? few : calloc(count, sizeof *parts);
  if (parts == NULL) {
    refuse(envoy, 503, NULL, "no memory is left");
    return false;
  }
  message_t message = {parts, 0, 0};
  for (int i = 0; i < 2; i++)
    if (counts[i] && FILTER(get_body_chunks)(envoy, bodies[i], parts + message.count))
      message.count += counts[i];
  for (size_t i = 0; i < message.count; i++) message.size += parts[i].length;
  bool is_good = check_message(envoy, &message);
  if (is_good) {
    name_t name;
    char value[3 * NAME_BYTES_MAX];
    if (find_name_in_metadata(envoy, &name) || find_name(&message, &name)) {
      span_t text = {value, write_header_value(&name, value)};
      FILTER(set_header)(envoy, REQUEST_HEADERS, word("x-mesh-model"), text);
      FILTER(clear_route_cache)(envoy);
    }
    FILTER(set_header)(envoy, REQUEST_HEADERS, word("x-mesh-call"), word("1"));
  }
  if (parts != few) free(parts);
  return is_good;
}

const void *ON_FILTER(config_new)(void *envoy, span_t name, span_t config) {
  static const char unused;
  (void)envoy, (void)name, (void)config;
  return &unused;
}

void ON_FILTER(config_destroy)(const void *config) { (void)config; }

/* A route's settings are one number. */
const void *ON_FILTER(per_route_config_new)(span_t name, span_t config) {
  (void)name;
  limit_t *limit = calloc(1, sizeof *limit);
  for (size_t i = 0; limit != NULL && i < config.length; i++)
    if (config.ptr[i] >= '0' && config.ptr[i] <= '9' && limit->message_bytes_max < SIZE_MAX / 100)
      limit->message_bytes_max = limit->message_bytes_max * 10 + (size_t)(config.ptr[i] - '0');
  return limit;
}

void ON_FILTER(per_route_config_destroy)(const void *config) { free((void *)config); }

/* Nothing is kept for a request: its address stands for it. */
const void *ON_FILTER(new)(const void *config, void *envoy) {
  (void)config;
  return envoy;
}

void ON_FILTER(destroy)(const void *filter) { (void)filter; }

int ON_FILTER(request_headers)(void *envoy, const void *filter, bool end) {
  (void)filter;
  if (!end) return HEADERS_STOP;
  refuse(envoy, 400, INVALID_ARGUMENT, "a unary gRPC call has one message, this one has none");
  return HEADERS_STOP;
}

int ON_FILTER(request_body)(void *envoy, const void *filter, bool end) {
  (void)filter;
  if (!end) return is_small_enough(envoy, true) ? BODY_BUFFER : BODY_DROP;
  return check_call(envoy, true) ? BODY_CONTINUE : BODY_DROP;
}

int ON_FILTER(request_trailers)(void *envoy, const void *filter) {
  (void)filter;
  return check_call(envoy, false) ? TRAILERS_CONTINUE : TRAILERS_STOP;
}

/* A server's 503 was one for Envoy alone: gRPC's clients look at the HTTP status first. */
int ON_FILTER(response_headers)(void *envoy, const void *filter, bool end) {
  (void)filter, (void)end;
  span_t status;
  size_t count;
  if (get(envoy, RESPONSE_HEADERS, ":status", &status, 0, &count) &&
      !(status.length == 3 && memcmp(status.ptr, "200", 3) == 0))
    FILTER(set_header)(envoy, RESPONSE_HEADERS, word(":status"), word("200"));
  return HEADERS_CONTINUE;
}

int ON_FILTER(response_body)(void *envoy, const void *filter, bool end) {
  (void)envoy, (void)filter, (void)end;
  return BODY_CONTINUE;
}

int ON_FILTER(response_trailers)(void *envoy, const void *filter) {
  (void)envoy, (void)filter;
  return TRAILERS_CONTINUE;
}

/* Envoy asks for these too; nothing that calls them is used here. */
#define UNUSED(x) \
  void ON_FILTER(x)(void) {}
UNUSED(stream_complete)
UNUSED(http_callout_done)
UNUSED(http_stream_headers)
UNUSED(http_stream_data)
UNUSED(http_stream_trailers)
UNUSED(http_stream_complete)
UNUSED(http_stream_reset)
UNUSED(scheduled)
UNUSED(downstream_above_write_buffer_high_watermark)
UNUSED(downstream_below_write_buffer_low_watermark)
