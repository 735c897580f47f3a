-- needs losses
-- A worker's leases end without an acknowledgement: of one message, or of all that a dead process held.
-- ARGV: consumer, most losses, delay in milliseconds, detail, then ids (none: all that are the consumer's)
-- Returns: returned, delayed, buried
local consumer, most, delay, detail = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local ended = {returned = 0, delayed = 0, buried = 0}

local function surrender(stream, pending)
    for _, claim in ipairs(pending.err and {} or pending) do
        local how = lose(stream, claim[1], most, delay, detail)
        if how then
            ended[how] = ended[how] + 1
        end
    end
end

if #ARGV == 4 then
    for _, stream in ipairs({STREAM, RETURNED}) do
        surrender(stream, redis.pcall('XPENDING', stream, GROUP, '-', '+', 100000, consumer))
    end
end
for position = 5, #ARGV do
    local stream, id = locate(ARGV[position])
    surrender(stream, redis.pcall('XPENDING', stream, GROUP, id, id, 1, consumer))
end
count_in('expired', ended.returned + ended.delayed + ended.buried)
return {ended.returned, ended.delayed, ended.buried}
