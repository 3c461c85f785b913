/* Frames between Envoy and a worker; `meshserve/protocol/frames.py` is the other end.

   Both directions have a head of 16 bytes, then a block of headers, then a body. Numbers are little
   endian. A block is `name \n value \n …`; that of a request begins with its method and its path.

   offset  request                 answer
   0       0xF7                    0xF8
   1       version, 1              version, 1
   2       flags, 1 byte, and 0    HTTP status, 2 bytes
   4       serial number           the request's serial number
   8       bytes of the block      bytes of the block
   12      bytes of the body       bytes of the body */
#ifndef MESH_FRAMES_H
#define MESH_FRAMES_H

#include "envoy_abi.h"

#define FRAME_HEAD_BYTES 16
#define REQUEST_MAGIC 0xF7
#define ANSWER_MAGIC 0xF8
#define FRAME_VERSION 1
/* The body is one gRPC message, and the answer's too. */
#define FLAG_CALL 1
/* The server must look at the headers: they have a deadline, metadata that name a model, or tell of
   a second attempt. */
#define FLAG_HEADERS_COUNT 2

#define BLOCK_BYTES_MAX 65536
#define BODY_BYTES_MAX 0x7FFFFFFFu

enum stage { IN_HEAD, IN_BLOCK, IN_BODY, BROKEN };

/* An answer, as far as it has come. In stage IN_BODY all but the body is known. */
typedef struct {
  enum stage stage;
  uint32_t serial;
  uint32_t status;
  size_t body_bytes;
  size_t block_bytes;
  size_t block_used;
  size_t block_room;
  size_t head_used;
  char *block;
  uint8_t head[FRAME_HEAD_BYTES];
} answer_t;

void write_request_head(uint8_t *head, uint8_t flags, uint32_t serial, size_t block_bytes,
                        size_t body_bytes);

/* Take bytes of an answer up to its body. Returns how many were taken; fewer than all only in stages
   IN_BODY and BROKEN. Memory is taken for bytes that came, never for those that a head announces. */
size_t read_answer(answer_t *answer, const char *bytes, size_t count);

/* Return the header at `*position` of a block, which is moved behind it; false at the end. */
bool next_header(const answer_t *answer, size_t *position, header_t *header);

void free_answer(answer_t *answer);

#endif
