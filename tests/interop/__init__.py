"""vpnd against strongSwan and against itself in network namespaces, judged by status and by real traffic."""
