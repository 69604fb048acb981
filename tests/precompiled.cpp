// CMake wants a source beside the headers that it precompiles; GoogleTest has the main function.
