-- needs rates
-- flags allow-oom
-- Completions: their rate, and the distribution of service times over the last five to ten minutes of work.
-- ARGV: completed, sum of milliseconds, number of kinds, then kind, completed, sum of milliseconds for each kind, then
-- bucket, count for each bucket that was hit
local GENERATION = 300000
local service, previous = key('service'), key('service:previous')
local now = milliseconds()
local began = tonumber(redis.call('HGET', service, 'at'))
if not began or math.abs(now - began) > GENERATION then
    if began then
        redis.call('RENAME', service, previous)
    end
    redis.call('HSET', service, 'at', now)
end
redis.call('HINCRBY', service, 'count', ARGV[1])
redis.call('HINCRBY', service, 'sum', ARGV[2])
local buckets = 4 + 3 * ARGV[3]
for position = 4, buckets - 1, 3 do
    local kind = 'kind:' .. ARGV[position]
    redis.call('HINCRBY', service, kind .. ':count', ARGV[position + 1])
    redis.call('HINCRBY', service, kind .. ':sum', ARGV[position + 2])
end
for position = buckets, #ARGV, 2 do
    redis.call('HINCRBY', service, ARGV[position], ARGV[position + 1])
end
count_in('completed', tonumber(ARGV[1]))
count_events('completed', tonumber(ARGV[1]))
