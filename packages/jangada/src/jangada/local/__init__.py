"""The platform on one machine: embedded servers, and the supervisor behind `jangada up`.

Needs the extra `jangada[local]`, of whose packages only the server binaries are used. Everything
that is started here ends with its runner, even when that is killed; everything that is written
stays in the data folder, but for a temporary folder for sockets where the path of the data folder
is too long for one.
"""
