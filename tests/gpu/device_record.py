"""Prints cuDNN's own record of the first GPU, from which plans for it can be made where it is not (kernels/cudnn/h100.h is
one). Usage: device_record.py"""
import ctypes
import glob
import sys

DEVICEPROP, DEVICE_ID, JSON, INT32, CHAR = 38, 2700, 2702, 23, 24  # of cudnn_graph_v9.h


def main():
    wheels = [path for base in sys.path for path in glob.glob(base + "/nvidia/cudnn/lib/libcudnn_graph.so.9")]
    path = next(iter(wheels), "libcudnn_graph.so.9")
    try:
        cudnn = ctypes.CDLL(path)
    except OSError as error:
        sys.exit(f"cuDNN: {error}")
    one, none, by = ctypes.c_int64(1), ctypes.c_int64(0), ctypes.byref
    device, gpu, count = ctypes.c_void_p(), ctypes.c_int32(0), ctypes.c_int64()

    def check(status):
        if status:
            sys.exit(f"cuDNN: status {status}")

    check(cudnn.cudnnBackendCreateDescriptor(DEVICEPROP, by(device)))
    check(cudnn.cudnnBackendSetAttribute(device, DEVICE_ID, INT32, one, by(gpu)))
    check(cudnn.cudnnBackendFinalize(device))
    check(cudnn.cudnnBackendGetAttribute(device, JSON, CHAR, none, by(count), None))
    text = ctypes.create_string_buffer(count.value + 1)
    check(cudnn.cudnnBackendGetAttribute(device, JSON, CHAR, count, by(count), text))
    print(text.value.decode())


if __name__ == "__main__":
    main()
