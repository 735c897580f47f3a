-- needs rates
-- Enqueue a message whose truth is here, at once or when it is due.
-- ARGV: version, delay in milliseconds, key, kind, body, then any further fields   Returns: 1
local now = milliseconds()
local fields = {'v', ARGV[1], 'key', ARGV[3], 'kind', ARGV[4], 'body', ARGV[5], 'since', now}
for position = 6, #ARGV do
    table.insert(fields, ARGV[position])
end
local delay = tonumber(ARGV[2])
if delay > 0 then
    redis.call('ZADD', key('delayed'), now + delay, cmsgpack.pack(fields))
else
    redis.call('XADD', STREAM, '*', unpack(fields))
    push_tokens(1)
end
count_in('published', 1)
count_events('arrived', 1)
return 1
