-- Dead letters, oldest first. ARGV: after which id ('-': from the first), at most so many
-- Returns: {id, reason, detail, the message's fields (flat)} for each
local reply = {}
local from = ARGV[1] == '-' and '-' or '(' .. ARGV[1]
for _, letter in ipairs(redis.call('XRANGE', key('dead'), from, '+', 'COUNT', ARGV[2])) do
    local found = fields_of(letter)
    table.insert(reply, {letter[1], found.reason, found.detail, cmsgpack.unpack(found.entry)})
end
return reply
