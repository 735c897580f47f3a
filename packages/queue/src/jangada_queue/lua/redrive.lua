-- needs losses
-- Dead letters back into the queue, as if they were new. ARGV: ids   Returns: how many were there
local redriven = 0
for _, id in ipairs(ARGV) do
    local letter = redis.call('XRANGE', key('dead'), id, id)[1]
    if letter then
        local fields = cmsgpack.unpack(fields_of(letter).entry)
        redis.call('XDEL', key('dead'), id)
        redis.call('XADD', STREAM, '*', unpack(with_field(fields, 'losses', 0)))
        redriven = redriven + 1
    end
end
push_tokens(redriven)
return redriven
