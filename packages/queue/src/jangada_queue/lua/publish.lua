-- Offer messages until `limit` wait; those already in the window are left alone, so publishing twice is harmless.
-- A full window sets the mark at which a claim wakes the dispatcher again.
-- ARGV: limit, version, where the round ended ('' leaves it), then key, kind, body for each message
-- Returns: published, waiting
local limit = tonumber(ARGV[1])
local waiting = depth()
local published = 0
if is_valkeys_own() then
    return {0, waiting}
end
for position = 4, #ARGV, 3 do
    if waiting >= limit then
        break
    end
    if redis.call('SADD', key('window'), ARGV[position]) == 1 then
        redis.call('XADD', STREAM, '*', 'v', ARGV[2], 'key', ARGV[position],
            'kind', ARGV[position + 1], 'body', ARGV[position + 2])
        waiting = waiting + 1
        published = published + 1
    end
end
push_tokens(published)
count_in('published', published)
if ARGV[3] ~= '' then
    redis.call('SET', key('turn'), ARGV[3])
end
if waiting >= limit then
    redis.call('SET', key('low'), math.floor(limit / 2))
else
    redis.call('DEL', key('low'))
end
return {published, waiting}
