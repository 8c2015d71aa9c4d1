//! Layers made by the system's tar and by hand, unpacked and compared.
