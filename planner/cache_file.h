/* cache_file.h - plans that survive a restart: a file for each device class in a folder.
 *
 * Nothing in the file is believed. What is read waits in the cache as bytes, like plans that other
 * ranks publish, and every plan is proven against the graph of a request before its first use; so a
 * file that somebody wrote to harm can waste time and memory up to its limits, and no more.
 *
 * File (little-endian; `v` is a varint), in <folder>/<device class, 32 hexadecimal digits>.plans:
 *   file   := "DJPC" version:u8 program_version:u8 plan_version:u8 device_class:16 op_table:16
 *             n_plans:v plan* hash:16
 *   plan   := exact_key:16 structure_bytes:v structure sizes_bytes:v sizes plan_bytes:v plan
 * The least recently used come first. The hash is dj_hash_of() everything before it: it finds damage.
 *
 * Several ranks may share a folder. A writer takes <class>.lock, adds to its own plans what the file
 * holds of others, writes <class>.tmp and renames it; so a reader sees a whole file at any moment,
 * and a writer that is killed leaves the old one. Folder and files must belong to the user and be
 * writable by nobody else.
 *
 * Threads: any; the cache has its lock. */
#ifndef DJ_PLANNER_CACHE_FILE_H
#define DJ_PLANNER_CACHE_FILE_H

#include "planner/cache.h"

#define DJ_CACHE_FILE_VERSION 1

enum {
    DJ_CACHE_FILE_BYTES_MAX = 128 << 20, /* the least recently used plans beyond are left out */
    DJ_CACHE_FILE_PLANS_MAX = 1 << 16,
};

/* Appends a file with what the cache holds, entries and waiting plans, and what the file `before`
 * (may be NULL; ignored when it is damaged or of another class) holds besides. DJ_ERR_MEMORY. */
dj_status_t dj_cache_file_encode(dj_cache_t *cache, dj_hash_t device_class, const void *before,
                                 size_t before_size, dj_bytes_t *bytes);

/* Publishes every plan of the file to the cache, or none unless memory ends. *n_plans_p: how many.
 * DJ_ERR_CORRUPT, DJ_ERR_CLASS, DJ_ERR_VERSION (also: made by a build with other ops), DJ_ERR_LIMIT,
 * DJ_ERR_MEMORY. */
dj_status_t dj_cache_file_decode(const void *data, size_t size, dj_hash_t device_class,
                                 dj_cache_t *cache, uint32_t *n_plans_p);

/* Reads the class's file of a folder; where there is none, DJ_OK and 0 plans. DJ_ERR_FILE (owner,
 * mode, no regular file, cannot be read), DJ_ERR_LIMIT, and as dj_cache_file_decode(); the sentence
 * names the file. */
dj_status_t dj_cache_file_load(const char *folder, dj_hash_t device_class, dj_cache_t *cache,
                               uint32_t *n_plans_p);

/* Writes it; the folder is made when only it is missing. DJ_ERR_BUSY: another writer did not finish
 * within wait_ms. DJ_ERR_FILE, DJ_ERR_MEMORY. */
dj_status_t dj_cache_file_save(const char *folder, dj_hash_t device_class, dj_cache_t *cache,
                               uint32_t wait_ms);

#endif
