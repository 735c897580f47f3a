-- The window says that messages are out, and there are none: part of the data was lost. Forget the window.
-- KEYS: stream, window, parked   Returns: how many keys were forgotten (0 when messages wait or are claimed)
if redis.call('XLEN', KEYS[1]) > 0 then
    return 0
end
local forgotten = redis.call('SCARD', KEYS[2])
redis.call('DEL', KEYS[2])
for _, tag in ipairs(redis.call('SMEMBERS', KEYS[3])) do
    redis.call('DEL', KEYS[3] .. ':' .. tag)
end
redis.call('DEL', KEYS[3])
return forgotten
