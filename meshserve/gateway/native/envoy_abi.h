/* What this module uses of Envoy's interface for dynamic modules, version 0.2.0.

   Source: source/extensions/dynamic_modules/abi/abi.h of github.com/envoyproxy/envoy. Envoy checks the
   version when it loads the module, and refuses one of another version. Pointers that Envoy gives are
   valid until the function that got them returns. */
#ifndef MESH_ENVOY_ABI_H
#define MESH_ENVOY_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ENVOY_ABI_VERSION "v0.2.0"

typedef struct {
  const char *ptr;
  size_t length;
} span_t;

typedef struct {
  const char *name;
  size_t name_length;
  const char *value;
  size_t value_length;
} header_t;

enum header_map { REQUEST_HEADERS = 0, RESPONSE_HEADERS = 2 };
enum body { RECEIVED_REQUEST = 0, BUFFERED_REQUEST = 1 };
enum on_headers { HEADERS_CONTINUE = 0, HEADERS_STOP = 1 };
enum on_body { BODY_CONTINUE = 0, BODY_BUFFER = 1, BODY_DROP = 3 };
enum on_trailers { TRAILERS_CONTINUE = 0, TRAILERS_STOP = 1 };

#define BRIDGE(x) envoy_dynamic_module_callback_upstream_http_tcp_bridge_##x
#define ON_BRIDGE(x) envoy_dynamic_module_on_upstream_http_tcp_bridge_##x
#define FILTER(x) envoy_dynamic_module_callback_http_##x
#define ON_FILTER(x) envoy_dynamic_module_on_http_filter_##x

/* An upstream request: one connection to a server, and the request that Envoy sends by it. The two
   `get_…_buffer` write all of a buffer's parts, of which there are as many as `…_chunks_size` says. */
size_t BRIDGE(get_request_headers_size)(void *envoy);
bool BRIDGE(get_request_headers)(void *envoy, header_t *all);
size_t BRIDGE(get_request_buffer_chunks_size)(void *envoy);
void BRIDGE(get_request_buffer)(void *envoy, span_t *all, size_t *count);
size_t BRIDGE(get_response_buffer_chunks_size)(void *envoy);
void BRIDGE(get_response_buffer)(void *envoy, span_t *all, size_t *count);
void BRIDGE(send_upstream_data)(void *envoy, span_t bytes, bool end);
void BRIDGE(send_response_headers)(void *envoy, uint32_t status, header_t *, size_t count, bool end);
void BRIDGE(send_response_data)(void *envoy, span_t bytes, bool end);
void BRIDGE(send_response_trailers)(void *envoy, header_t *, size_t count);

/* A filter of a client's request. */
bool FILTER(get_header)(void *envoy, int map, span_t name, span_t *value, size_t index, size_t *count);
bool FILTER(set_header)(void *envoy, int map, span_t name, span_t value);
size_t FILTER(get_body_chunks_size)(void *envoy, int body);
bool FILTER(get_body_chunks)(void *envoy, int body, span_t *all);
size_t FILTER(get_body_size)(void *envoy, int body);
const void *envoy_dynamic_module_callback_get_most_specific_route_config(void *envoy);
void FILTER(clear_route_cache)(void *envoy);
void FILTER(send_response)(void *envoy, uint32_t status, header_t *, size_t count, span_t body,
                           span_t details);

#endif
