-- needs losses
-- A worker holds a message that it can't read: to the dead letters. ARGV: id, detail   Returns: 1 when it was still held
local stream, id = locate(ARGV[1])
local entry = take_out(stream, id)
if not entry then
    return 0
end
bury(entry[2], 'unreadable', ARGV[2])
count_in('unreadable', 1)
return 1
