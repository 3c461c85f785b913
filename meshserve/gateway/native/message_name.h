/* The name of a call's model, in its message or in its metadata. `lua/small_models.lua` does the
   same where this module is not there; a test holds the two equal. */
#ifndef MESH_MESSAGE_NAME_H
#define MESH_MESSAGE_NAME_H

#include "envoy_abi.h"

#define GRPC_HEAD_BYTES 5
/* A longer name is cut: no model has one. */
#define NAME_BYTES_MAX 2048

typedef struct {
  size_t count;
  char bytes[NAME_BYTES_MAX];
} name_t;

/* A gRPC message with its head, in the parts in which it came. `parts` may be changed. */
typedef struct {
  span_t *parts;
  size_t count;
  size_t size;
} message_t;

/* Copy bytes at an offset, as many as there are. Returns how many. */
size_t copy_bytes(const message_t *message, size_t offset, char *to, size_t count);

/* Find field 1 of the message, the last one if it stands several times, as parsers do. Returns
   whether it is there and is not empty. */
bool find_name(const message_t *message, name_t *name);

/* Decode base64, with or without padding; other characters are skipped. Returns the bytes written,
   at most NAME_BYTES_MAX. */
size_t decode_base64(span_t text, char *to);

/* Write the name as a header's value, in which a control character is %XX. `to` has room for
   3 * NAME_BYTES_MAX bytes. Returns the bytes written. */
size_t write_header_value(const name_t *name, char *to);

#endif
