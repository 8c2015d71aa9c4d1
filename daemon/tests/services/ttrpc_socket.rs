//! ttrpc_socket
