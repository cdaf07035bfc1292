module bench/upstream

go 1.25
