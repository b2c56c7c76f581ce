module example.org/bitnet/story

go 1.19
