-- Offer messages until `limit` wait; those already in the window are left alone, so publishing twice is harmless.
-- A full window sets the mark at which a claim wakes the dispatcher again.
-- KEYS: stream, window, wake, low, counters, turn
-- ARGV: limit, version, where the round ended ('' leaves it), then key, kind, body for each message
-- Returns: published, waiting
local limit = tonumber(ARGV[1])
local waiting = depth(KEYS[1])
local published = 0
for position = 4, #ARGV, 3 do
    if waiting >= limit then
        break
    end
    if redis.call('SADD', KEYS[2], ARGV[position]) == 1 then
        redis.call('XADD', KEYS[1], '*', 'v', ARGV[2], 'key', ARGV[position],
            'kind', ARGV[position + 1], 'body', ARGV[position + 2])
        waiting = waiting + 1
        published = published + 1
    end
end
if published > 0 then
    push_tokens(KEYS[3], published)
    redis.call('HINCRBY', KEYS[5], 'published', published)
end
if ARGV[3] ~= '' then
    redis.call('SET', KEYS[6], ARGV[3])
end
if waiting >= limit then
    redis.call('SET', KEYS[4], math.floor(limit / 2))
else
    redis.call('DEL', KEYS[4])
end
return {published, waiting}
